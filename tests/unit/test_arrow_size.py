"""A small body that unpacks to gigabytes is refused before any of it is unpacked."""

import resource
from contextlib import suppress

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from citybrain import arrow_size
from citybrain.edge import forms
from citybrain.errors import InvalidInput
from citybrain.layout import Layout
from tests.simulated.cases import small_city

ROWS = 20_000_000


def stream(batch: pa.RecordBatch, compression: str | None) -> bytes:
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.ipc.new_stream(sink, batch.schema, options=options) as writer:
        writer.write_batch(batch)
    return sink.getvalue().to_pybytes()


@pytest.mark.parametrize("compression", ["zstd", "lz4"])
def test_a_bomb_is_refused_by_what_it_states_and_costs_no_memory(compression: str) -> None:
    batch = pa.record_batch({"value": pa.array(np.zeros(ROWS))})
    body = stream(batch, compression)
    assert len(body) < 8 << 20
    del batch
    before = pa.total_allocated_bytes()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InvalidInput, match=r"body: unpacks to 160000000 bytes") as caught:
        arrow_size.check(body)
    assert caught.value.reason == "size"
    with pytest.raises(InvalidInput, match="unpacks to"):
        forms.parse(body, forms.ARROW, Layout(small_city()))
    assert pa.total_allocated_bytes() == before
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 20_000


@pytest.mark.parametrize("compression", ["zstd", "lz4", None])
def test_an_honest_stream_passes_whether_compressed_or_not(compression: str | None) -> None:
    names = pa.DictionaryArray.from_arrays(pa.array([0, 1] * 500), pa.array(["d1", "d2"]))
    batch = pa.record_batch({"sensor": names, "value": pa.array(np.arange(1000.0))})
    arrow_size.check(stream(batch, compression))
    stated = sum(arrow_size._unpacked(stream(batch, compression)))
    assert (stated >= 12_000) == bool(compression)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damaged_streams_never_break_the_one_who_measures(data: st.DataObject) -> None:
    names = pa.DictionaryArray.from_arrays(pa.array([0, 1] * 5), pa.array(["d1", "d2"]))
    batch = pa.record_batch({"sensor": names, "value": pa.array(np.arange(10.0))})
    body = bytearray(stream(batch, data.draw(st.sampled_from(["zstd", "lz4", None]))))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(body) - 1))
        body[at : at + 4] = data.draw(st.sampled_from([b"\xff" * 4, b"\0" * 4, b"\x7f", b""]))
    with suppress(InvalidInput):
        arrow_size.check(bytes(body))


def test_few_codes_for_one_huge_name_are_refused() -> None:
    names = pa.DictionaryArray.from_arrays(
        pa.array(np.zeros(500_000, np.int32)), pa.array(["x" * 1_000_000])
    )
    rows = len(names)
    columns = {"sensor": names, "kind": names, "time": np.zeros(rows, np.int64)}
    body = stream(pa.record_batch(columns | {"value": pa.array(np.zeros(rows))}), None)
    with pytest.raises(InvalidInput, match="sensor: 500000 rows of up to 1000000 bytes"):
        forms.parse(body, forms.ARROW, Layout(small_city()))
