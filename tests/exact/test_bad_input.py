"""Wrong input by the tens of thousands: nothing crashes, nothing stalls, nothing goes missing.

`tests/exact/ways.py` has a way for each door. Message i of a way is the same each time:
`python -m tests.exact.ways WAY I` feeds it again.
"""

import os
import random
import time

import pytest

from tests.exact.ways import WAYS

MESSAGES = 1_000_000 if os.environ.get("CITYBRAIN_TEST_SIZE") == "full" else 20_000
SLOWEST_S = 10.0
"""CPU seconds of one message; far above what any takes, far below a stall."""


@pytest.mark.timeout(3 * 3_600)
@pytest.mark.parametrize("way", WAYS)
def test_wrong_input_is_counted_and_refused_and_ends_nothing(way: str) -> None:
    feed, share = WAYS[way]
    went_in = 0
    for i in range(max(20, round(MESSAGES * share))):
        begin = time.process_time()
        try:
            went_in += feed(random.Random(f"{way} {i}"))
        except Exception as error:
            error.add_note(f"python -m tests.exact.ways {way!r} {i}")
            raise
        assert time.process_time() - begin < SLOWEST_S, f"{way} {i} takes too long"
    assert went_in > 0
