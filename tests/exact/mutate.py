"""Valid things made wrong, so that they come far into whoever reads them; all from one `rng`."""

import copy
import json
import random
from typing import Any

import pyarrow as pa

WORDS: tuple[Any, ...] = (
    None, True, "", "d1", "\x00", "vehicle_count", "路口", "x" * 5_000, -1, 0, 1e308, -0.0, 2**63,
    2**64, 10**400, -(10**30), 1.5, "NaN", "1e9", [], {}, [[]], {"a": 1}, "2023-11-14T22:13:20Z",
    "2023-11-14T22:13:20",
)  # fmt: skip
BYTES = (b"\xff", b"\x00", b"\xed\xa0\x80", b"NaN", b"-Infinity", b"1e999", b"{", b"]", b'"',
         b"\xef\xbb\xbf", "路".encode("gbk"), b"\xff\xff\xff\x7f", b"\x00" * 8)  # fmt: skip


def tree(rng: random.Random, valid: Any) -> Any:
    """A JSON value with one to three places changed, dropped or made much too deep."""
    whole = [copy.deepcopy(valid)]
    for _ in range(rng.randint(1, 3)):
        at: Any = whole
        key: Any = 0
        while isinstance(at[key], dict | list) and at[key] and rng.random() < 0.8:
            at = at[key]
            key = rng.choice(list(at)) if isinstance(at, dict) else rng.randrange(len(at))
        what = rng.randrange(5)
        if what == 0 and at is not whole:
            del at[key]
            continue
        at[key] = copy.deepcopy(rng.choice(WORDS)) if what < 4 else _deep(rng)
    return whole[0]


def _deep(rng: random.Random) -> Any:
    value: Any = 1
    for _ in range(rng.choice((5, 50, 400))):
        value = [value] if rng.random() < 0.5 else {"a": value}
    return value


def text(rng: random.Random, valid: Any) -> bytes:
    """JSON of a changed value, at times with a key twice, and at times damaged as bytes."""
    said = json.dumps(tree(rng, valid) if rng.random() < 0.8 else valid).encode()
    if rng.random() < 0.1 and said[:1] == b"{" and len(said) > 2:
        key = json.dumps(rng.choice(list(valid) if isinstance(valid, dict) else ["a"])).encode()
        said = b"{" + key + b":" + json.dumps(rng.choice(WORDS)).encode() + b"," + said[1:]
    if rng.random() < 0.02:
        said = b"[" * 100_000
    return raw(rng, said) if rng.random() < 0.4 else said


def raw(rng: random.Random, valid: bytes) -> bytes:
    """Bytes cut, flipped, spliced or repeated."""
    data = bytearray(valid)
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(data) + 1)
        what = rng.randrange(5)
        if what == 0:
            del data[at:]
        elif what == 1 and data:
            data[min(at, len(data) - 1)] ^= 1 << rng.randrange(8)
        elif what == 2:
            data[at:at] = rng.choice(BYTES)
        elif what == 3:
            put = rng.choice(BYTES)
            data[at : at + len(put)] = put
        else:
            data[at:at] = data[at : at + rng.randrange(40)]
    return bytes(data)


COLUMNS = (
    pa.array(["d1", None]), pa.array(["d1", "ghost"], pa.large_utf8()), pa.array([b"\xb3", b""]),
    pa.array(["d1", "d1"]).dictionary_encode(), pa.array([1, None], pa.int64()),
    pa.array([2**63 - 1, -(2**63)]), pa.array([2**62, 0], pa.timestamp("s", "UTC")),
    pa.array([1, 2], pa.timestamp("ns")), pa.array([1.5, None]), pa.array([float("nan"), 1e308]),
    pa.array([True, False]), pa.array([None, None]), pa.array([[1], []]),
    pa.array([{"a": 1}, None]), pa.array([2**64 - 1, 0], pa.uint64()), pa.array([1, 2], pa.int8()),
)  # fmt: skip


def arrow(rng: random.Random, valid: bytes) -> bytes:
    """An Arrow stream with other columns, other metadata, compressed, or damaged."""
    if rng.random() < 0.4:
        return raw(rng, valid)
    table = pa.ipc.open_stream(valid).read_all()
    for _ in range(rng.randint(0, 2)):
        place = rng.randrange(table.num_columns)
        name = table.schema.names[place]
        what = rng.randrange(4)
        if what == 0 and table.num_columns > 1:
            table = table.remove_column(place)
            continue
        one = rng.choice(COLUMNS)
        full = pa.chunked_array([one.take(pa.array([i % 2 for i in range(len(table))]))])
        if what == 1:
            table = table.append_column(rng.choice((name, "other")), full)
        else:
            table = table.set_column(place, name, full)
    head = (table.schema.metadata or {}).get(b"citybrain")
    if head is not None and rng.random() < 0.6:
        table = table.replace_schema_metadata({b"citybrain": text(rng, json.loads(head))})
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression=rng.choice((None, "lz4", "zstd")))
    with pa.ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=rng.choice((None, 1)))
    said = sink.getvalue().to_pybytes()
    return raw(rng, said) if rng.random() < 0.3 else said
