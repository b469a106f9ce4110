"""Logs stay readable when a library repeats itself."""

import logging

from citybrain.log import Repeats


def test_what_is_said_over_and_over_is_shown_once_with_how_often_it_was() -> None:
    now = 0.0
    repeats = Repeats(10.0, lambda: now)

    def say(text: str, *args: object) -> str | None:
        record = logging.LogRecord("aiokafka", logging.ERROR, "", 0, text, args, None)
        return record.getMessage() if repeats.filter(record) else None

    assert say("node %s is away", 1) == "node 1 is away"
    assert say("node %s is away", 1) is None
    assert say("another thing") == "another thing"
    now = 9.9
    assert say("node %s is away", 1) is None
    now = 10.0
    assert say("node %s is away", 1) == "node 1 is away (and 2 times more)"
