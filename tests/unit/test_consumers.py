"""One contract for everybody who can be told of alerts."""

import json
import re
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from citybrain.consumers import CONSUMERS, addresses, tell
from citybrain.deliveries import Delivery
from citybrain.errors import UsageError
from tests.receiver import Receiver

ROOT = Path(__file__).parents[2]
Arrived = Callable[[], list[object]]


@contextmanager
def http(_: Path) -> Iterator[tuple[str, Arrived]]:
    receiver = Receiver()
    with receiver.serving():
        yield f"{receiver.url}/alerts", lambda: [body for _, _, body in receiver.requests]


@contextmanager
def file(folder: Path) -> Iterator[tuple[str, Arrived]]:
    path = folder / "alerts.jsonl"
    yield (
        f"file://{path}",
        lambda: [json.loads(line)["alert"] for line in path.read_text().splitlines()],
    )


RIGS = {"http": http, "file": file}


def delivery(address: str, number: int = 1) -> Delivery:
    return Delivery(f"rain/city/{number}/raised/2", address, b'[{"id": %d}]' % number, 0, 0)


@pytest.mark.parametrize("scheme", sorted(set(CONSUMERS) - {"https"}))
def test_every_consumer_gets_each_alert_as_it_is(scheme: str, tmp_path: Path) -> None:
    with RIGS[scheme](tmp_path) as (address, arrived):
        assert addresses(address) == [address]
        for number in (1, 2):
            assert tell(delivery(address, number))[0] == "delivered"
        assert arrived() == [[{"id": 1}], [{"id": 2}]]


@pytest.mark.parametrize("address", ["http://127.0.0.1:1/x", "file:///no/such/folder/alerts"])
def test_who_is_away_is_to_be_told_again(address: str) -> None:
    outcome, why = tell(delivery(address))
    assert outcome == "again"
    assert why


@pytest.mark.parametrize("scheme", sorted(CONSUMERS))
def test_an_address_that_lacks_something_is_refused_without_being_repeated(scheme: str) -> None:
    with pytest.raises(UsageError, match="address 1 of 1: it is not") as refused:
        addresses(f"{scheme}:secret")
    assert "secret" not in str(refused.value)


def test_a_line_that_does_not_fit_on_the_disk_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "alerts.jsonl"
    assert tell(delivery(f"file://{path}"))[0] == "delivered"
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    was = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 10, limits[1]))
    try:
        assert tell(delivery(f"file://{path}", 2))[0] == "again"
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, was)
    assert path.read_bytes() == before


def test_everything_that_contributors_are_told_to_register_in_is_there() -> None:
    rows = re.findall(r"\| `([A-Z_]+)` in `([^`]+)` \|", (ROOT / "CONTRIBUTING.md").read_text())
    assert len(rows) >= 10
    for name, path in rows:
        assert re.search(rf"^{name}\b.*=", (ROOT / path).read_text(), re.MULTILINE), (name, path)
