"""Bytes that somebody has to understand: decoded as far as possible, else as hexadecimal."""

import json

from citybrain import batch
from citybrain.clock import stamp
from citybrain.columns import Rosters
from citybrain.errors import InvalidInput

ROWS = 20
BYTES = 512


def legible(value: bytes) -> tuple[str, str]:
    """What form the bytes have, and a text of them.

    >>> legible(b'{"a": 1}')
    ('JSON', '{\\n "a": 1\\n}')
    >>> legible(bytes([0, 255, 65]))
    ('unknown', '00000000  00 ff 41                                         |..A|')
    """
    try:
        entry = batch.decode(value, Rosters())
    except InvalidInput:
        entry = None
    if isinstance(entry, batch.Batch):
        return f"batch of {len(entry)} readings", _batch(entry)
    try:
        return "JSON", _json(json.loads(value))
    except (ValueError, RecursionError):
        pass  # not JSON: the next form is tried
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError:
        return "unknown", hexadecimal(value)
    if text.isprintable() or all(c.isprintable() or c in "\r\n\t" for c in text):
        return "text", text[: BYTES * 8]
    return "unknown", hexadecimal(value)


def hexadecimal(value: bytes) -> str:
    """The first bytes as `hexdump -C` shows them."""
    lines = []
    for start in range(0, min(len(value), BYTES), 16):
        row = value[start : start + 16]
        characters = "".join(chr(b) if 32 <= b < 127 else "." for b in row)
        lines.append(f"{start:08x}  {row.hex(' '):<47}  |{characters}|")
    if len(value) > BYTES:
        lines.append(f"... and {len(value) - BYTES} bytes more")
    return "\n".join(lines)


def _batch(rows: batch.Batch) -> str:
    head = rows.head
    lines = [
        f"kind {head.kind}, gateway {head.gateway}, incarnation {head.incarnation},"
        f" shard {head.shard}, sequence {head.seq}, version {head.version}"
    ]
    for i in range(min(len(rows), ROWS)):
        name = rows.roster.names[rows.codes[i]]
        time, value, quality = int(rows.time_ms[i]), float(rows.value[i]), int(rows.quality[i])
        lines.append(f"{name}  {_time(time)}  {value:g}  quality {quality}")
    if len(rows) > ROWS:
        lines.append(f"... and {len(rows) - ROWS} readings more")
    return "\n".join(lines)


def _json(data: object) -> str:
    text = json.dumps(data, indent=1, ensure_ascii=False)
    # Refused input may try to write to the terminal: then everything is escaped.
    return text if text.replace("\n", "").isprintable() else json.dumps(data, indent=1)


def _time(time_ms: int) -> str:
    try:
        return stamp(time_ms)
    except (ValueError, OverflowError, OSError):
        return f"{time_ms} ms"  # far outside of any calendar: that may be why it was refused
