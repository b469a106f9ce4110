"""Many schedules, on several processes; what was drawn, and which seeds failed."""

import multiprocessing
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from typing import Literal

from tests.simulated import chain, rollups
from tests.simulated.schedule import World

Engine = Literal["rollup", "chain"]
PLAY: dict[Engine, Callable[[int], World]] = {"rollup": rollups.play, "chain": chain.play}
PROCESSES = 2
CHUNK = 100


@dataclass
class Played:
    """What many schedules came to. failed: seed -> what went wrong."""

    schedules: int = 0
    steps: int = 0
    drawn: Counter[str] = field(default_factory=Counter)
    failed: dict[int, str] = field(default_factory=dict)

    def table(self, engine: str) -> str:
        """For people: each kind of fault, and how often it was drawn."""
        rows = [f"  {name:24} {count:>8,}" for name, count in sorted(self.drawn.items())]
        head = f"{engine}: {self.schedules:,} schedules, {self.steps:,} steps, faults drawn:"
        bad = [f"  seed {seed}: {why}" for seed, why in sorted(self.failed.items())]
        return "\n".join([head, *rows, f"  failed: {len(self.failed)}", *bad[:20]])


def play(engine: Engine, seeds: range) -> Played:
    """Play seeds, two chunks at a time."""
    chunks = [seeds[i : i + CHUNK] for i in range(0, len(seeds), CHUNK)]
    context = multiprocessing.get_context("spawn")
    whole = Played()
    with ProcessPoolExecutor(PROCESSES, context) as pool:
        for part in pool.map(_chunk, [engine] * len(chunks), chunks):
            whole.schedules += part.schedules
            whole.steps += part.steps
            whole.drawn += part.drawn
            whole.failed |= part.failed
    return whole


def hush() -> None:
    """Tasks of a process that died before they had begun are no news."""
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)


def _chunk(engine: Engine, seeds: Iterable[int]) -> Played:
    hush()
    told = Played()
    for seed in seeds:
        told.schedules += 1
        try:
            world = PLAY[engine](seed)
        except Exception as error:  # noqa: BLE001  # whatever goes wrong is this seed's finding
            told.failed[seed] = f"{type(error).__name__}: {error}"[:300]
        else:
            told.steps += world.loop.steps
            told.drawn += world.drawn
    return told
