"""A whole city by one command: it lives, survives a kill, stops without a trace, goes on."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from citybrain.pack import load
from citybrain.recording import RecordingWriter
from tests import readme
from tests.packs import write_pack

DEADLINE_S = 240


class Up:
    """One `citybrain up` as a user starts it."""

    def __init__(self, data: Path, *words: str) -> None:
        self.data = data
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            edge = str(probe.getsockname()[1])  # 8040 may be another city's
        self.errors = data.parent / f"stderr-{time.monotonic_ns()}"
        with self.errors.open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "citybrain", "up", "--data", str(data), "--json",
                 "--days", "0", "--city", "adlershof", "--edge-port", edge, *words],
                stdout=subprocess.PIPE, stderr=errors,
            )  # fmt: skip

    def page(self) -> str:
        """The page's address, as it stands on the terminal."""
        found = until(lambda: [w for w in self.errors.read_text().split() if w.startswith("http")])
        return str(found[0])

    def devices(self) -> str:
        """Where devices send to, as it stands on the terminal."""
        words = self.errors.read_text().split()
        return next(word for word in words if word.endswith("/readings"))

    def pid(self, name: str) -> int:
        """A child's process id by its run file."""
        return int(json.loads((self.data / "run" / f"{name}.json").read_text())["pid"])

    def family(self) -> list[psutil.Process]:
        """All processes below this one."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def finish(self) -> dict[str, Any]:
        """Wait for the end; the object that it prints."""
        out, _ = self.process.communicate(timeout=DEADLINE_S)
        assert self.process.returncode == 0, self.errors.read_text()[-4000:]
        report: dict[str, Any] = json.loads(out)
        return report


def until(true: Callable[[], Any], seconds: float = DEADLINE_S) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := true():
            return found
        time.sleep(0.2)
    raise AssertionError(f"not within {seconds} s")


def read(address: str) -> Any:
    with urllib.request.urlopen(address, timeout=10) as answer:
        return json.load(answer)


def counted(page: str) -> int:
    """Readings that the engine has counted, as the page shows them."""
    return int(read(f"{page}api/state")["figures"]["counts"]["counted"])


def silent(up: Up, page: str) -> bool:
    """Whether the detector that dies at the beginning has been noticed."""
    file = up.data / "world" / "events.json"
    if not file.is_file():
        return False
    dead = next(e for e in json.loads(file.read_text())["events"] if e["what"] == "dead")
    return any(
        alert["rule"] == "sensor-silent" and alert["place"]["sensor"] == dead["sensor"]
        for alert in read(f"{page}api/state")["alerts"]
    )


def adds_up(report: dict[str, Any]) -> bool:
    fates = ("counted", "duplicate", "backfilled", "overflowed", "dead_lettered", "in_flight")
    return bool(report["produced"] == sum(report[fate] for fate in fates))


def as_the_readme_says(city: Up) -> None:
    """What the README tells operators and people with devices to type, typed."""
    listed = readme.run("citybrain alert list --json", city.data)
    alert = next(one["id"] for one in json.loads(listed.stdout) if one["active"])
    for typed in readme.commands("For operators"):
        done = readme.run(typed.replace(" ID ", f" '{alert}' "), city.data)
        # These two also tell by their code how well the city is, which has only just started.
        diagnosis = typed.split()[1] in ("status", "doctor")
        assert done.returncode in ((0, 1, 6) if diagnosis else (0,)), f"{typed}: {done}"
    devices = "\n".join(readme.commands("For people with devices"))
    done = readme.run(devices.replace("http://127.0.0.1:8040/readings", city.devices()), city.data)
    assert done.returncode == 0, done
    assert '"accepted":1' in done.stdout
    assert "in maintenance until 20" in done.stdout


@pytest.mark.world
@pytest.mark.browser
def test_a_city_survives_a_killed_worker_stops_without_a_trace_and_goes_on(tmp_path: Path) -> None:
    data = tmp_path / "data"
    first = Up(data)
    page = first.page()
    until(lambda: silent(first, page))
    victim = first.pid("worker-1")
    os.kill(victim, signal.SIGKILL)
    until(lambda: first.pid("worker-1") != victim)
    before = counted(page)
    until(lambda: counted(page) > before)
    family = first.family()
    assert len(family) >= 6
    first.process.send_signal(signal.SIGINT)
    report = first.finish()
    assert report["watched"], report["watch_problems"]
    assert report["restarts"]["worker-1"] == 1
    assert report["sum_holds"]
    assert adds_up(report)
    assert report["counted"] > 0
    assert report["in_flight"] == 0
    assert report["stats"] > 0
    assert report["first_stat_s"] is not None
    dead = next(event for event in report["events"] if event["what"] == "dead")
    assert dead["detected"]
    assert "sensor-silent" in dead["by"]
    _, left = psutil.wait_procs(family, timeout=5)
    assert left == []

    # A second one, ended by Ctrl-C, goes on where the first one stopped.
    second = Up(data)
    page = second.page()
    until(lambda: counted(page) > report["counted"] + 500)
    as_the_readme_says(second)
    family = second.family()
    second.process.send_signal(signal.SIGINT)
    again = second.finish()
    assert again["sum_holds"]
    assert adds_up(again)
    assert again["counted"] > report["counted"]
    _, left = psutil.wait_procs(family, timeout=5)
    assert left == []


def test_a_recorded_city_is_played_and_every_reading_of_it_is_counted(tmp_path: Path) -> None:
    folder = write_pack(tmp_path / "small")
    file = tmp_path / "recording.parquet"
    begin = 1_767_571_200_000  # 2026-01-05 00:00 UTC
    with RecordingWriter(file, load(str(folder))) as writer:
        for step in range(300):
            writer.write(
                np.full(2, begin + step * 10_000),
                ["d1", "d4"],
                ["vehicle_count"] * 2,
                np.array([step % 7, 3.0]),
                np.zeros(2, np.uint8),
            )
    up = Up(tmp_path / "data", "--city", str(folder), "--recording", str(file), "--speed", "0")
    page = up.page()
    until(lambda: counted(page) == 600)
    up.process.send_signal(signal.SIGINT)
    report = up.finish()
    assert (report["produced"], report["counted"], report["in_flight"]) == (600, 600, 0)
    assert report["sum_holds"]
    assert report["events"] == []


def test_a_taken_page_port_and_a_data_folder_in_use_are_named(tmp_path: Path) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        up = Up(tmp_path / "data", "--page-port", str(port))
        assert up.process.wait(DEADLINE_S) == 3
        assert f"page_port: port {port} of 127.0.0.1" in up.errors.read_text()
        assert "Traceback" not in up.errors.read_text()


def test_a_broken_pack_stops_up_before_anything_starts(tmp_path: Path) -> None:
    folder = tmp_path / "town"
    folder.mkdir()
    (folder / "city.toml").write_text('id = "town"\n')
    up = Up(tmp_path / "data", "--city", str(folder))
    assert up.process.wait(DEADLINE_S) == 4
    assert "sensors.csv: missing" in up.errors.read_text()
    assert not (tmp_path / "data" / "kafka").exists()
