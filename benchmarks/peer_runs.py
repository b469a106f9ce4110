"""Bytewax and Quix Streams on prepared messages: `python -m benchmarks.peer_runs ENGINE HOW ...`.

Runs in an environment of its own (requirements/peers.lock). HOW is `own`: their window
operator, one minute, count, sum, min and max by sensor, each batch unpacked into readings; or
`core`: each batch handed whole to our window core. Prints the CPU seconds of the whole process
and a digest of the first minute's windows, as JSON.
"""

import hashlib
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from citybrain import batch as readings
from citybrain.batch import Batch
from citybrain.columns import Rosters
from citybrain.kinds import MINUTE
from citybrain.models.windows import Closed, Windows

Row = tuple[str, int, int, float, float, float]
"""Sensor, start of its window, count, sum, min, max."""

ROSTERS = Rosters()
IDLE_S = 5.0
"""Quix Streams stops after so long without a message."""


def digest(rows: list[Row], first_ms: int) -> str:
    """What tells the windows of the first minute from any other result."""
    mine = sorted(row for row in rows if row[1] == first_ms)
    return f"{len(mine)}:{hashlib.sha256(json.dumps(mine).encode()).hexdigest()[:16]}"


class Core:
    """Our window core behind one function that takes a message's bytes."""

    def __init__(self, width: int) -> None:
        self._windows = Windows(width, (MINUTE, 5 * MINUTE, 30 * MINUTE), (), 0, 15 * MINUTE)
        self._places: dict[Any, slice] = {}
        self._names: dict[int, str] = {}
        self.rows: list[Row] = []

    def take(self, value: bytes) -> list[Closed]:
        """Count one batch; what closed with it."""
        batch = _batch(value)
        place = self._places.get(batch.roster)
        if place is None:
            first = int(batch.roster.names[0][1:])
            place = self._places[batch.roster] = slice(first, first + len(batch))
            self._names.update(enumerate(batch.roster.names, first))
        self._windows.add(place, batch.time_ms, batch.value, batch.head.seq)
        told = self._windows.advance(batch.head.watermark_ms)
        if told and not self.rows:
            for one in told:
                if one.window_ms == MINUTE:
                    self.rows = [
                        (self._names[i], one.start_ms, int(one.seen[i]), float(one.sum[i]),
                         float(one.min[i]), float(one.max[i])) for i in one.sensor.tolist()
                    ]  # fmt: skip
        return told


def _batch(value: bytes) -> Batch:
    batch = readings.decode(value, ROSTERS)
    assert isinstance(batch, Batch)
    return batch


def _unpacked(value: bytes) -> Iterator[tuple[str, int, float]]:
    batch = _batch(value)
    names = batch.roster.names
    rows = zip(batch.codes.tolist(), batch.time_ms.tolist(), batch.value.tolist(), strict=True)
    return ((names[code], at, number) for code, at, number in rows)


def bytewax(how: str, bootstrap: str, topic: str, width: int) -> list[Row]:
    """One worker thread, from the log's beginning to its end."""
    import bytewax.operators as op
    import bytewax.operators.windowing as win
    from bytewax.connectors.kafka import KafkaSource
    from bytewax.dataflow import Dataflow
    from bytewax.testing import TestingSink, run_main

    flow = Dataflow("peer")
    source = KafkaSource([bootstrap], [topic], tail=False,
                         add_config={"fetch.message.max.bytes": "4194304"})  # fmt: skip
    records = op.input("in", flow, source)
    found: list[Any] = []
    if how == "core":
        core = Core(width)

        def take(state: Core | None, record: Any) -> tuple[Core, list[Closed]]:
            state = state or core
            return state, state.take(record.value)

        keyed = op.key_on("key", records, lambda record: "s0")
        op.output("out", op.stateful_flat_map("core", keyed, take), TestingSink(found))
        run_main(flow)
        return core.rows

    clock = win.EventClock(
        lambda row: datetime.fromtimestamp(row[0] / 1000, UTC),
        wait_for_system_duration=timedelta(seconds=2),
    )
    tumbling = win.TumblingWindower(
        length=timedelta(minutes=1), align_to=datetime(2023, 1, 1, tzinfo=UTC)
    )
    rows = op.flat_map(
        "unpack", records, lambda record: ((s, (t, v)) for s, t, v in _unpacked(record.value))
    )
    windows = win.fold_window(
        "fold", rows, clock, tumbling, lambda: (0, 0.0, float("inf"), float("-inf")),
        lambda acc, row: (
            acc[0] + 1, acc[1] + row[1], min(acc[2], row[1]), max(acc[3], row[1])
        ),
        lambda a, b: (a[0] + b[0], a[1] + b[1], min(a[2], b[2]), max(a[3], b[3])),
    )  # fmt: skip
    op.output("out", windows.down, TestingSink(found))
    run_main(flow)
    epoch = datetime(2023, 1, 1, tzinfo=UTC).timestamp() * 1000
    return [(sensor, int(epoch) + window * MINUTE, *acc) for sensor, (window, acc) in found]


def quix(how: str, bootstrap: str, topic: str, width: int) -> list[Row]:
    """One application, from the log's beginning to its end; its own topic in between."""
    from quixstreams import Application
    from quixstreams.dataframe.windows.aggregations import Count, Max, Min, Sum

    app = Application(
        bootstrap, consumer_group=f"peer-{time.time_ns()}", auto_offset_reset="earliest",
        state_dir=tempfile.mkdtemp(prefix="citybrain-peer-"), loglevel="ERROR",
        consumer_extra_config={"fetch.message.max.bytes": 4 << 20},
    )  # fmt: skip
    source = app.topic(
        topic, value_deserializer="bytes",
        timestamp_extractor=lambda value, headers, at, kind: _batch(value).head.watermark_ms,
    )  # fmt: skip
    frame = app.dataframe(source)
    if how == "core":
        core = Core(width)
        frame.apply(core.take)
        app.run(timeout=IDLE_S, collect=False)
        return core.rows
    found: list[Row] = []
    frame = frame.apply(
        lambda value: [{"s": s, "v": v} for s, _, v in _unpacked(value)], expand=True
    )
    frame = frame.group_by("s")
    frame = (
        frame.tumbling_window(timedelta(minutes=1), grace_ms=0)
        .agg(n=Count(), sum=Sum("v"), min=Min("v"), max=Max("v"))
        .final()
    )

    def take(value: Any, key: Any, at: int, headers: Any) -> None:
        found.append((key, value["start"], value["n"], value["sum"], value["min"], value["max"]))

    frame.update(take, metadata=True)
    app.run(timeout=IDLE_S, collect=False)
    return found


ENGINES: dict[str, Callable[..., list[Row]]] = {"bytewax": bytewax, "quix": quix}


def main() -> None:
    """See the module."""
    engine, how, bootstrap, topic, width, first_ms = sys.argv[1:]
    begin = time.process_time()
    rows = ENGINES[engine](how, bootstrap, topic, int(width))
    spent = time.process_time() - begin
    print(json.dumps({"cpu_s": spent, "digest": digest(rows, int(first_ms))}))


if __name__ == "__main__":
    main()
