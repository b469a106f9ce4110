"""Blocks of saved state: arrays of one length as an Arrow stream with a version."""

from collections.abc import Mapping

import pyarrow as pa

from citybrain.errors import InvalidInput
from citybrain.models.panes import Array

VERSION = 1
_KEY = b"citybrain-block"
# State compresses to a fifth, in less time than Kafka's client takes to copy the rest.
# Without threads: a block is small, and handing its columns over costs more than packing them.
_OPTIONS = pa.ipc.IpcWriteOptions(compression="lz4", use_threads=False)
_READ = pa.ipc.IpcReadOptions(use_threads=False)


def encode(arrays: Mapping[str, Array]) -> bytes:
    """The bytes of a block."""
    batch = pa.RecordBatch.from_arrays([pa.array(a) for a in arrays.values()], names=list(arrays))
    batch = batch.replace_schema_metadata({_KEY: str(VERSION).encode()})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema, options=_OPTIONS) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue())


def decode(name: str, block: bytes) -> dict[str, Array]:
    """The arrays of a block. Raises InvalidInput `version` or `format`."""
    try:
        reader = pa.ipc.open_stream(pa.py_buffer(block), options=_READ)
        version = int((reader.schema.metadata or {}).get(_KEY, b"0"))
        check(name, version)
        batch = reader.read_next_batch()
    except (pa.ArrowInvalid, StopIteration, OSError) as error:
        raise InvalidInput("format", f"state block {name}: {error}") from error
    columns = zip(batch.schema.names, batch.columns, strict=True)
    return {key: column.to_numpy(zero_copy_only=False) for key, column in columns}


def check(name: str, version: int) -> None:
    """Raise InvalidInput `version` unless this code reads that version of a block."""
    if version != VERSION:
        raise InvalidInput("version", f"state block {name}: version {version} is not {VERSION}")
