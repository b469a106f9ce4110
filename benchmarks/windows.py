"""The window core alone: numpy arrays in, closed windows out."""

import time
from collections.abc import Iterable

import numpy as np

from benchmarks.frame import Row, Size, spread
from citybrain.kinds import MINUTE
from citybrain.models.windows import Windows

SENSORS = 100_000


def core(size: Size) -> Iterable[Row]:
    """Readings a second of one core: a gateway's sensors in order, and scattered ones."""
    sweeps = 60 if size == "small" else 300
    for name, messages in (("windows, in order", 20), ("windows, 500 a message", 200)):
        width = SENSORS // messages
        batches = [np.arange(i * width, (i + 1) * width, dtype=np.intp) for i in range(messages)]
        yield Row(
            name, "readings/s", spread(lambda b=batches: _run(b, sweeps)),
            {"sensors": SENSORS, "a message": width, "windows": "1, 5 min"},
        )  # fmt: skip
    order = np.random.default_rng(1).permutation(SENSORS).astype(np.intp)
    batches = np.array_split(order, 20)
    yield Row(
        "windows, scattered sensors", "readings/s", spread(lambda: _run(batches, sweeps // 4)),
        {"sensors": SENSORS, "a message": SENSORS // 20},
    )  # fmt: skip


def _run(batches: list[np.ndarray], sweeps: int) -> float:
    windows = Windows(SENSORS, (MINUTE, 5 * MINUTE), delay_ms=2_000, ring_ms=5 * MINUTE)
    values = [np.full(len(batch), 1.5) for batch in batches]
    begin = time.process_time()
    for sweep in range(sweeps):
        now = sweep * 5_000
        for batch, value in zip(batches, values, strict=True):
            windows.add(batch, np.full(len(batch), now, np.int64), value, sweep)
        windows.advance(now)
    return SENSORS * sweeps / (time.process_time() - begin)
