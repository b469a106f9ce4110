"""The real page: a real broker, a real centre, a real Chromium."""

import asyncio
import json
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from playwright.async_api import Browser, ConsoleMessage, Page, async_playwright

from citybrain import pack
from citybrain.broker import LocalBroker
from citybrain.city import BUILT_IN, City
from citybrain.kafka import producer_arguments
from citybrain.stage import Out
from citybrain.topics import ensure, full_name

DEADLINE_MS = 60_000
SOFTWARE_GL = ("--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")
NO_GL = ("--no-sandbox", "--disable-gpu", "--disable-3d-apis")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here drives a browser."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("browser")


@pytest.fixture
def city(tmp_path: Path, city_id: str) -> City:
    """The built-in city under a name that no other test has."""
    folder = tmp_path / "pack"
    shutil.copytree(BUILT_IN / "adlershof", folder)
    text = (folder / "city.toml").read_text()
    (folder / "city.toml").write_text(text.replace('id = "adlershof"', f'id = "{city_id}"', 1))
    return pack.load(str(folder))


@dataclass
class Live:
    """A city whose output topics the test writes."""

    city: City
    broker: LocalBroker
    producer: AIOKafkaProducer

    async def say(self, outs: Iterable[Out]) -> None:
        """Write records; all are acknowledged when this returns."""
        waiting = [
            await self.producer.send(
                full_name(self.city.id, out.topic), out.value, key=out.key, partition=out.partition
            )
            for out in outs
        ]
        await asyncio.gather(*waiting)


@pytest.fixture
async def live(city: City, broker: LocalBroker) -> AsyncIterator[Live]:
    """The city's topics on the broker."""
    await ensure(broker.settings, city.id, city.partitions)
    async with AIOKafkaProducer(**producer_arguments(broker.settings)) as producer:
        yield Live(city, broker, producer)


@dataclass
class Centre:
    """A `citybrain centre` process."""

    city: City
    broker: LocalBroker
    data: Path
    port: int = 0
    process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        """Where its page is."""
        url: str = json.loads((self.data / "centre" / "page.json").read_text())["url"]
        return url

    async def start(self) -> None:
        """Start it, and wait until it says where its page is."""
        command = ["centre", "--city", str(self.city.folder), "--data", str(self.data)]
        command += ["--broker", self.broker.settings.bootstrap, "--port", str(self.port)]
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "citybrain", *command
        )
        async with asyncio.timeout(DEADLINE_MS / 1000):
            while not (self.data / "centre" / "page.json").exists():
                assert self.process.returncode is None, "the centre has ended"
                await asyncio.sleep(0.1)
        self.port = int(self.url.rstrip("/").rpartition(":")[2])

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End it; its exit code."""
        if self.process is None or self.process.returncode is not None:
            return 0
        self.process.send_signal(number)
        async with asyncio.timeout(30):
            code = await self.process.wait()
        if number == signal.SIGKILL:
            (self.data / "centre" / "page.json").unlink(missing_ok=True)
        return code


@pytest.fixture
async def centre(live: Live, tmp_path: Path) -> AsyncIterator[Centre]:
    """A running centre of the city."""
    started = Centre(live.city, live.broker, tmp_path / "data")
    await started.start()
    yield started
    await started.stop()


@dataclass
class Complaints:
    """What the browser's console said that it should not have."""

    texts: list[str] = field(default_factory=list)

    def listen(self, page: Page) -> Page:
        """Collect errors, warnings of the page's policy and exceptions of a page."""

        def heard(message: ConsoleMessage) -> None:
            if message.type == "error" or "Content Security Policy" in message.text:
                self.texts.append(message.text)

        page.on("console", heard)
        page.on("pageerror", lambda error: self.texts.append(str(error)))
        page.set_default_timeout(DEADLINE_MS)
        return page


@pytest.fixture
def complaints() -> Iterator[Complaints]:
    """Pages that `listen` must not complain."""
    heard = Complaints()
    yield heard
    assert heard.texts == []


def _chromium() -> str:
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if not found:
        pytest.skip("Chromium is not installed: make system")
    return found


async def _browser(arguments: Iterable[str]) -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=_chromium(), args=list(arguments)
        )
        yield browser
        await browser.close()


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    """A Chromium that draws by software."""
    async for browser in _browser(SOFTWARE_GL):
        yield browser


@pytest.fixture
async def browser_without_webgl() -> AsyncIterator[Browser]:
    """A Chromium that has no WebGL."""
    async for browser in _browser(NO_GL):
        yield browser
