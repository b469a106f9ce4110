"""The names of metrics: what dashboards, rules and the manual speak of is really served."""

import asyncio
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from citybrain.broker import LocalBroker
from citybrain.city import BUILT_IN
from citybrain.pack import load
from citybrain.process import living
from citybrain.topics import ensure
from tests.unit.test_monitoring import RULE_LIST, expressions

# Of processes that these tests do not run, and of cities that have signals.
MANUAL = Path(__file__).parents[2] / "docs" / "metrics.md"
NAME = re.compile(r"\b(?:citybrain|process)_[a-z0-9_]+")


ROLES = {"worker", "historian", "centre", "edge", "fitter", "world", "world-past"}


@pytest.fixture(scope="module")
def scraped(broker: LocalBroker, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Process -> what it serves at /metrics, of every kind of process that a city has."""
    data = tmp_path_factory.mktemp("metrics")
    pack = data / "pack"
    shutil.copytree(BUILT_IN / "adlershof", pack)
    toml = pack / "city.toml"
    toml.write_text(toml.read_text().replace('id = "adlershof"', 'id = "metrics"', 1))
    asyncio.run(ensure(broker.settings, "metrics", load(str(pack)).partitions))
    edge = data / "edge.toml"
    edge.write_text("[sources.http]\nport = 0\n")
    common = ["--city", str(pack), "--data", str(data)]
    # The devices of the world find no agent, which is counted as well.
    world = ["world", *common, "--edge", "http://127.0.0.1:9", "--days", "0.1", "--no-twin"]
    ours = (["worker"], ["historian"], ["centre"], ["edge", "run", str(edge)], ["fitter"])
    reached = [*common, "--broker", broker.settings.bootstrap]
    commands = [*([*words, *reached] for words in ours), world]
    started = [subprocess.Popen([sys.executable, "-m", "citybrain", *words]) for words in commands]
    try:
        until = time.monotonic() + 180
        while len(there := {_role(run.process): run for run in living(data)}) < len(ROLES):
            assert all(process.poll() is None for process in started)
            assert time.monotonic() < until, f"only {sorted(there)} are there"
            time.sleep(0.2)
        return {run.process: _served(run.port) for run in living(data)}
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.wait(60)


def _role(process: str) -> str:
    return next((role for role in sorted(ROLES, reverse=True) if process.startswith(role)), "")


def _served(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        text: str = answer.read().decode()
    return text


def _base(name: str) -> str:
    return re.sub(r"_(bucket|sum|count)$", "", name)


def test_every_metric_that_is_spoken_of_is_served_and_every_one_of_ours_is_explained(
    scraped: dict[str, str],
) -> None:
    served = {
        name for text in scraped.values() for name in re.findall(r"^# HELP (\S+) ", text, re.M)
    }
    texts = [*expressions(), *(rule["expr"] for rule in RULE_LIST)]
    used = {_base(name) for text in texts for name in NAME.findall(text)}
    assert len(used) > 25
    assert used - served == set()
    explained = set(re.findall(r"^\| `(citybrain_[a-z0-9_]+)`", MANUAL.read_text(), re.MULTILINE))
    ours = {name for name in served if name.startswith("citybrain_")}
    ours = {name for name in ours if not name.endswith("_created")}
    assert ours - explained == set(), "explain these in docs/metrics.md"
    assert explained - ours == set(), "docs/metrics.md speaks of metrics that nobody serves"


def test_no_label_names_a_sensor_and_units_are_base_units(scraped: dict[str, str]) -> None:
    for process, text in scraped.items():
        assert not re.search(r'(sensor|vehicle|gateway)="', text), process
        names = re.findall(r"^# TYPE (citybrain_\S+) (\S+)$", text, re.MULTILINE)
        assert names
        for name, kind in names:
            assert not re.search(r"_(ms|minutes|hours|kb|mb|percent)(_|$)", name), name
            assert kind != "counter" or name.endswith("_total"), name
