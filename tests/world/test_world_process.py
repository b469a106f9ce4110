"""The world as a process: it lives at once, stops cleanly, fills the past, and goes on."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from citybrain.edge.world import schedule
from citybrain.edge.world.folder import joined
from citybrain.pack import load
from citybrain.process import living
from tests.receiver import Receiver

pytestmark = pytest.mark.world

PATIENCE_S = 120.0


def wait(condition: Callable[[], Any], what: str) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.1)


@contextmanager
def world(data: Path, url: str, *options: str, ends: int = 0) -> Iterator[subprocess.Popen[bytes]]:
    """A world of its own; told to stop at the end, it ends with this code."""
    command = [sys.executable, "-m", "citybrain", "world", "--data", str(data), "--edge", url]
    with (data.parent / "world.log").open("ab") as log:
        process = subprocess.Popen([*command, *options], stderr=log)
    try:
        yield process
        assert process.poll() in (None, ends), (data.parent / "world.log").read_text()
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == ends, (data.parent / "world.log").read_text()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def values(receiver: Receiver) -> dict[tuple[str, str, int], set[float]]:
    """Every value that was ever sent for a series and time, in both lanes."""
    found: dict[tuple[str, str, int], set[float]] = {}
    for _, _, batch in list(receiver.requests):
        for r in batch:
            key = (str(r["sensor"]), str(r["kind"]), int(r["time"]))  # type: ignore[call-overload]  # JSON
            found.setdefault(key, set()).add(float(r["value"]))  # type: ignore[arg-type]  # JSON
    return found


def health(data: Path, process: str) -> dict[str, Any]:
    port = next(run.port for run in living(data) if run.process == process)
    answer = httpx.get(f"http://127.0.0.1:{port}/health", trust_env=False, timeout=30)
    return answer.json() | {"status": answer.status_code}


def test_it_reports_from_every_gateway_and_stops_cleanly(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    city = load("adlershof")
    with Receiver().serving() as receiver:
        with world(data, receiver.url, "--days", "0"):
            gateways = {s.gateway for s in city.sensors.values()} - {"weather", "air"}
            sensors = {s.id: s.gateway for s in city.sensors.values()}
            seen = lambda: {sensors[r[0]] for r in receiver.readings()}  # noqa: E731
            wait(lambda: seen() >= gateways, "every gateway's first readings")
            state = health(data, "world")
            assert (state["status"], state["ok"]) == (200, True)
        assert living(data) == []
        sent = read(data / "world" / "sent.json")
        assert sent["produced"] == sent["acknowledged"] == len(receiver.readings())
        now = time.time() * 1000
        assert all(now - 600_000 < r[2] <= now for r in receiver.readings())
        events = schedule.read(data / "world" / "events.json")
        assert {"dead", "stuck", "chattering", "crash", "cloudburst"} <= {e.what for e in events}
        assert all(e.generated for e in events)


def test_an_agent_that_is_away_is_said_and_gets_everything_later(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    gone = Receiver()
    port = int(gone.url.rpartition(":")[2])
    with gone.serving():
        pass
    unsent = data / "world" / "unsent.msgpack"
    with world(data, gone.url, "--days", "0"):
        wait(unsent.is_file, "readings that nobody takes")
    before = read(data / "world" / "sent.json")
    assert before["acknowledged"] == 0
    assert before["produced"] == before["pending"] > 0
    with Receiver(port).serving() as receiver:
        with world(data, receiver.url, "--days", "0"):
            wait(lambda: len(receiver.readings()) >= before["pending"], "what was left")
        assert not unsent.exists()
        assert all(len(found) == 1 for found in values(receiver).values())


def test_the_past_is_filled_goes_on_after_a_kill_and_is_never_told_in_two_ways(
    tmp_path: Path,
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    with Receiver().serving() as receiver:
        progress = data / "world" / "progress.json"
        options = ("--days", "0.06", "--past-share", "1")

        def done() -> list[list[int]]:
            return read(progress)["done"] if progress.is_file() else []

        with world(data, receiver.url, *options):
            wait(done, "the first half hour of the past")
            child = next(run.pid for run in living(data) if run.process == "world-past")
            os.kill(child, signal.SIGKILL)
        first = done()
        with world(data, receiver.url, *options):
            wait(lambda: progress.is_file() and read(progress)["finished"], "all of the past")
        spans = [tuple(s) for s in done() + read(data / "world" / "spans.json")]
        assert len(joined(spans)) == 1, "from the first run's past to the second's stop, no gap"
        assert done()[0][0] == first[0][0], "what was done stays done"
        assert read(progress)["generated"] is True
        found = values(receiver)
        assert all(len(told) == 1 for told in found.values())
        start, end = joined(spans)[0]
        # Single detectors may be dead; a batch that was lost would be a gateway's silence.
        gateway = {s.id: s.gateway for s in load("adlershof").sensors.values()}
        heard: dict[int, set[str]] = {}
        for sensor, _, t in found:
            heard.setdefault(t, set()).add(gateway[sensor])
        due = set(gateway.values()) - {"weather", "air"}
        silent = {t: due - heard.get(t, set()) for t in range(start + 10_000, end, 10_000)}
        assert {t: who for t, who in silent.items() if who} == {}


def test_a_world_that_was_killed_goes_on(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    with Receiver().serving() as receiver:
        with world(data, receiver.url, "--days", "0", ends=-signal.SIGKILL) as process:
            wait(receiver.readings, "readings")
            process.kill()
        with world(data, receiver.url, "--days", "0"):
            many = len(receiver.readings())
            wait(lambda: len(receiver.readings()) > many + 300, "more readings")
        assert all(len(told) == 1 for told in values(receiver).values())


def test_a_given_schedule_is_what_happens(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    now = int(time.time() * 1000)
    event = schedule.Event(
        id="mine", what="dead", from_ms=now - 60_000, to_ms=now + 600_000,
        sensor="d-143308542.8-1",
    )  # fmt: skip
    schedule.write(tmp_path / "mine.json", [event])
    with Receiver().serving() as receiver:
        with world(data, receiver.url, "--days", "0", "--schedule", str(tmp_path / "mine.json")):
            wait(lambda: len(receiver.readings()) > 800, "two rounds of readings")
        events = schedule.read(data / "world" / "events.json")
        assert [e.id for e in events] == ["mine"]
        assert all(r[0] != event.sensor for r in receiver.readings())


@pytest.mark.parametrize(
    ("options", "code", "word"),
    [
        (["--city", "nowhere"], 4, "nowhere"),
        (["--schedule", "nothing.json"], 2, "nothing.json"),
        (["--mqtt", "somewhere"], 2, "HOST:PORT"),
    ],
)
def test_a_wrong_option_is_named(tmp_path: Path, options: list[str], code: int, word: str) -> None:
    command = [sys.executable, "-m", "citybrain", "world", "--data", str(tmp_path), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == code
    assert word in done.stderr
    assert "Traceback" not in done.stderr


def test_the_simulators_process_never_loads_another_arrow() -> None:
    """libsumo brings an Arrow library of its own; two in one process would not go well."""
    code = (
        "import sys, citybrain.edge.world.live, citybrain.cli.world; from citybrain import pack;"
        "pack.load('adlershof'); import libsumo; sys.exit('pyarrow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=PATIENCE_S).returncode == 0
