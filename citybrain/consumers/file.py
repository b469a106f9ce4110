"""Alerts as lines of JSON at the end of a file, for whatever on this machine reads one.

A line is `{"key": ..., "alert": {...}}`. It is on the disk before it counts as delivered.
"""

import os
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

import msgspec

from citybrain.consumers.consumer import Consumer, Outcome
from citybrain.deliveries import Delivery


def check(parts: SplitResult) -> None:
    """Raises ValueError for an address that names no absolute path of this machine."""
    if parts.netloc or not parts.path.startswith("/") or parts.path.endswith("/"):
        raise ValueError("it is not file:///absolute/path")


def tell(delivery: Delivery) -> tuple[Outcome, str]:
    """Append one line. A disk that is full or a folder that is not there is tried again; what
    was written of a line by then is taken back."""
    path = Path(unquote(urlsplit(delivery.address).path))
    line = msgspec.json.encode({"key": delivery.key, "alert": msgspec.Raw(delivery.body)}) + b"\n"
    try:
        with path.open("ab", buffering=0) as file:
            before = file.tell()
            try:
                _write(file.fileno(), line)
            except OSError:
                file.truncate(before)
                raise
    except OSError as error:
        return "again", f"{error.strerror}"
    return "delivered", ""


def _write(number: int, line: bytes) -> None:
    rest = line
    while rest:
        rest = rest[os.write(number, rest) :]
    os.fsync(number)


CONSUMER = Consumer(check, tell)
