"""`python -m tests.simulated [--chain] --seed N` or `--schedules N`: play schedules again."""

import argparse
import sys

from tests.simulated import many
from tests.simulated.planted import FAULTS


def main() -> int:
    """One seed with its faults, or many with a table. Exit code 1 if any failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulated", description=__doc__)
    parser.add_argument("--seed", type=int, help="play this one, and raise what goes wrong")
    parser.add_argument("--schedules", type=int, default=1_000, help="play so many seeds from 0")
    parser.add_argument("--chain", action="store_true", help="rollup, analyse and alerting")
    parser.add_argument("--planted", choices=FAULTS, help="with this fault put into the engine")
    chosen = parser.parse_args()
    engine: many.Engine = "chain" if chosen.chain else "rollup"
    if chosen.seed is None:
        played = many.play(engine, range(chosen.schedules))
        print(played.table(engine))
        return bool(played.failed)
    planted = FAULTS[chosen.planted] if chosen.planted else {}
    many.hush()
    world = many.PLAY[engine](chosen.seed, **planted)
    for step, name in world.happened:
        print(f"step {step:>6}  {name}")
    print(f"seed {chosen.seed}: exact after {world.loop.steps} steps, digest {world.digest()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
