"""What `up` has started is found by what is started beside it, without being told where."""

import asyncio
import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from citybrain.broker import LocalBroker
from citybrain.city import City
from citybrain.topics import ensure
from tests.stream import edge_rig as rig


@pytest.fixture
async def city(broker: LocalBroker, city_id: str, tmp_path: Path) -> City:
    made = rig.make_city(tmp_path / "pack", city_id)
    await ensure(broker.settings, made.id, made.partitions)
    return made


def well(run: Path) -> bool:
    """Whether the process of this run file says that work goes on."""
    try:
        port = json.loads(run.read_text())["port"]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except (OSError, ValueError, urllib.error.URLError):
        return False


@pytest.mark.parametrize("words", [("edge", "run", "{data}/edge.toml"), ("centre",)])
async def test_edge_run_and_centre_find_the_broker_of_their_data_folder(
    words: tuple[str, ...], broker: LocalBroker, city: City, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    (data / "kafka").mkdir(parents=True)
    port = int(broker.settings.bootstrap.rpartition(":")[2])
    (data / "kafka" / "cluster.json").write_text(json.dumps({"nodes": [{"port": port}]}))
    (data / "edge.toml").write_text('name = "a"\n[sources.http]\nport = 0\n')
    line = [word.format(data=data) for word in words]
    process = subprocess.Popen(
        [sys.executable, "-m", "citybrain", *line, "--city", str(city.folder), "--data", str(data)],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        end = time.monotonic() + 90
        name = "edge-a" if words[0] == "edge" else "centre"
        while not well(data / "run" / f"{name}.json"):
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < end, "not well within 90 s"
            await asyncio.sleep(0.2)
    finally:
        process.terminate()
        said = process.communicate(timeout=60)[1]
    assert process.returncode == 0, said
    for text in said.splitlines():
        assert json.loads(text)["process"] == name, text
