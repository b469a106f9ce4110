"""`python -m tests.faults.skewed MILLISECONDS COMMAND...`: citybrain under a clock that is off.

The clock of the whole process is shifted before anything else is loaded, so that libraries
see the same wrong time as our own code. Monotonic time goes on as it is, as it does on a
machine whose clock is set wrong.
"""

import sys
import time


def shift(by_ms: int) -> None:
    """Let this process's wall clock be so far ahead."""
    wall, wall_ns = time.time, time.time_ns
    time.time = lambda: wall() + by_ms / 1000
    time.time_ns = lambda: wall_ns() + by_ms * 1_000_000


if __name__ == "__main__":
    shift(int(sys.argv.pop(1)))
    from citybrain.cli.main import main

    main()
