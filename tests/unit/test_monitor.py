"""What the report of a run says about results, and what it says it did not see."""

from collections import Counter
from pathlib import Path

import msgspec
import pytest
from aiokafka import ConsumerRecord
from hypothesis import given
from hypothesis import strategies as st

from citybrain.columns import Rosters
from citybrain.errors import SetupError, UsageError
from citybrain.pack import load
from citybrain.settings import Settings
from citybrain.up.launch import Options, check
from citybrain.up.monitor import Seen, _take, percentiles
from tests.packs import write_pack


def record(topic: str, value: bytes | None) -> ConsumerRecord:
    return ConsumerRecord(topic, 0, 7, 1_000, 0, None, value, None, 0, 0, ())


@pytest.mark.parametrize("topic", ["stats", "findings", "forecasts", "alerts"])
def test_a_record_that_nobody_can_read_is_named_and_does_not_end_the_counting(topic: str) -> None:
    seen = Seen()
    _take(seen, topic, record(topic, b'{"type":"finding","value":null}'), Rosters())
    _take(seen, topic, record(topic, None), Rosters())
    (problem,) = seen.problems
    assert problem.startswith(f"{topic}: ")
    assert seen.counts == Counter()


@given(st.lists(st.integers(0, 5_000), min_size=1, max_size=300))
def test_percentiles_are_values_that_were_measured(samples: list[int]) -> None:
    found = percentiles(Counter(samples))
    ordered = sorted(samples)
    for name, percent in (("p50", 50), ("p99", 99)):
        value = found[name]
        assert value in ordered
        assert sum(one <= value for one in ordered) * 100 >= percent * len(ordered)
        assert sum(one < value for one in ordered) * 100 < percent * len(ordered)


def test_without_a_measurement_there_is_no_percentile() -> None:
    assert percentiles(Counter()) == {"p50": None, "p99": None}


def test_what_cannot_run_is_refused_before_anything_starts(tmp_path: Path) -> None:
    plain = load(str(write_pack(tmp_path / "pack")))
    with pytest.raises(UsageError, match="no simulated world"):
        check(Settings(page_port=0), Options(), plain)
    check(Settings(page_port=0), Options(recording=tmp_path / "any.parquet", speed=0), plain)
    living = load("adlershof")
    with pytest.raises(UsageError, match="speed: 0"):
        check(Settings(page_port=0), Options(speed=0), living)


def test_a_page_port_that_is_taken_is_named_before_anything_starts() -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(SetupError, match=f"page_port: port {port}"):
            check(msgspec.structs.replace(Settings(), page_port=port), Options(), load("adlershof"))
