"""Logs stay readable when a library repeats itself."""

import errno
import io
import json
import logging
import subprocess
import sys
from typing import Any

from citybrain.log import Repeats, Steady

SAYS = """
import logging, threading
from aiokafka.errors import NotLeaderForPartitionError, RequestTimedOutError
from citybrain import log

def fail(say):
    try:
        raise ValueError("planted")
    except ValueError:
        say.exception("broken")

ours = log.get("edge.http")
log.configure("edge-a")
for say in (logging.getLogger("aiokafka"), ours):
    thread = threading.Thread(target=fail, args=(say,))  # where context is another
    thread.start()
    thread.join()
client = logging.getLogger("aiokafka.consumer.fetcher")
for error in (NotLeaderForPartitionError(), RequestTimedOutError()):
    client.error("Failed fetch offsets from %s: %s", 0, error)
"""


def said() -> list[dict[str, Any]]:
    """What a process that says this has on its stderr."""
    done = subprocess.run([sys.executable, "-c", SAYS], capture_output=True, check=True, text=True)
    return [json.loads(line) for line in done.stderr.splitlines()]


def test_every_line_has_its_process_and_its_traceback_and_what_mends_itself_is_no_error() -> None:
    library, ours, slow = said()
    assert {line["process"] for line in (library, ours, slow)} == {"edge-a"}
    for line in (library, ours):
        assert "ValueError: planted" in line["exception"]
        assert "in fail" in line["exception"]
    assert "RequestTimedOutError" in slow["event"], "the partition without a leader is not there"


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
