"""Logs stay readable when a library repeats itself."""

import errno
import io
import logging

from citybrain.log import Repeats, Steady


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


class Disk(io.StringIO):
    """A file on a disk that may be full."""

    full = False

    def write(self, text: str) -> int:
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(text)


def test_a_full_disk_under_the_logs_ends_no_process_and_is_told_afterwards() -> None:
    disk = Disk()
    stream = Steady(disk)
    print("before", file=stream, flush=True)
    disk.full = True
    print("lost", file=stream, flush=True)
    disk.full = False
    print("after", file=stream, flush=True)
    assert disk.getvalue() == "before\n2 writes to this log were lost\nafter\n"
