"""The names of metrics: what dashboards, rules and the manual speak of is really served."""

import asyncio
import re
import sys
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from citybrain.broker import LocalBroker
from citybrain.process import living
from citybrain.topics import ensure
from tests.packs import CITY, write_pack
from tests.unit.test_monitoring import RULE_LIST, expressions

# Of processes that these tests do not run, and of cities that have signals.
NOT_STARTED = ("citybrain_world", "citybrain_fitter", "citybrain_signals", "citybrain_edge_signal")
MANUAL = Path(__file__).parents[2] / "docs" / "metrics.md"
NAME = re.compile(r"\b(?:citybrain|process)_[a-z0-9_]+")


@asynccontextmanager
async def _processes(broker: LocalBroker, city_id: str, data: Path) -> AsyncIterator[None]:
    pack = write_pack(data / "pack", city=CITY.replace('"small"', f'"{city_id}"'))
    await ensure(broker.settings, city_id, 4)
    edge = data / "edge.toml"
    edge.write_text("[sources.http]\nport = 0\n")
    common = ["--city", str(pack), "--data", str(data), "--broker", broker.settings.bootstrap]
    commands = (["worker"], ["historian"], ["centre"], ["edge", "run", str(edge)])
    started = [
        await asyncio.create_subprocess_exec(sys.executable, "-m", "citybrain", *words, *common)
        for words in commands
    ]
    try:
        async with asyncio.timeout(120):
            while len(living(data)) < len(started):
                assert all(p.returncode is None for p in started)
                await asyncio.sleep(0.2)
        yield
    finally:
        for process in started:
            process.terminate()
        for process in started:
            await process.wait()


def _served(data: Path) -> dict[str, str]:
    """Metric -> its help, of all living processes."""
    found = {}
    for run in living(data):
        with urllib.request.urlopen(f"http://127.0.0.1:{run.port}/metrics", timeout=30) as answer:
            text = answer.read().decode()
        found |= dict(re.findall(r"^# HELP (\S+) (.*)$", text, re.MULTILINE))
    return found


def _base(name: str) -> str:
    return re.sub(r"_(bucket|sum|count)$", "", name)


async def test_every_metric_that_is_spoken_of_is_served_and_every_one_of_ours_is_explained(
    broker: LocalBroker, city_id: str, tmp_path: Path
) -> None:
    async with _processes(broker, city_id, tmp_path):
        served = await asyncio.to_thread(_served, tmp_path)
    texts = [*expressions(), *(rule["expr"] for rule in RULE_LIST)]
    used = {_base(name) for text in texts for name in NAME.findall(text)}
    assert len(used) > 25
    assert used - served.keys() == set()
    explained = set(re.findall(r"^\| `(citybrain_[a-z0-9_]+)`", MANUAL.read_text(), re.MULTILINE))
    ours = {name for name in served if name.startswith("citybrain_")}
    ours = {name for name in ours if not name.endswith("_created")}
    assert ours - explained == set(), "explain these in docs/metrics.md"
    world = {name for name in explained if name.startswith(NOT_STARTED)}
    assert explained - ours - world == set(), "docs/metrics.md speaks of metrics that nobody serves"


async def test_no_label_names_a_sensor_and_units_are_base_units(
    broker: LocalBroker, city_id: str, tmp_path: Path
) -> None:
    async with _processes(broker, city_id, tmp_path):
        for run in living(tmp_path):
            address = f"http://127.0.0.1:{run.port}/metrics"
            text = (await asyncio.to_thread(urllib.request.urlopen, address)).read().decode()
            assert not re.search(r'(sensor|vehicle|gateway)="', text)
            names = re.findall(r"^# TYPE (citybrain_\S+) (\S+)$", text, re.MULTILINE)
            assert names
            for name, kind in names:
                assert not re.search(r"_(ms|minutes|hours|kb|mb|percent)(_|$)", name), name
                assert kind != "counter" or name.endswith("_total"), name
