"""Devices that send all the time, and the truth of what they sent, by the simplest means.

Truth is counted here, when an agent has said yes, in arrays of ten-second panes: nothing of
the engine's windows is used. A device sends a batch until it gets an answer.
"""

import asyncio
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from citybrain.city import City

KIND = "occupancy"
PANE_MS = 10_000
PER_SECOND = 10
HIGH, RAISE_AT, CLEAR_AT = 90.0, 70.0, 60.0
EPISODE_MS = 20_000
MOST_SECONDS = 20
"""So much goes into one request of a device that has something to make up for."""


@dataclass(slots=True)
class Episode:
    """A sensor whose values are high for a while; each sensor has one at most."""

    sensor: str
    start_ms: int
    end_ms: int


@dataclass(slots=True)
class Truth:
    """What was answered yes: counts and sums by (pane, sensor). refused: by reason.

    unsure: cells of batches that were refused after an earlier try had got no answer, so that
    they may have been stored then. late_by_clock: readings taken while an agent's clock was
    an hour ahead, which it must take for an hour old.
    """

    names: list[str]
    begin_ms: int
    count: npt.NDArray[np.int64] = field(init=False)
    total: npt.NDArray[np.float64] = field(init=False)
    accepted: int = 0
    sent: int = 0
    refused: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    unsure: set[tuple[int, int]] = field(default_factory=set)
    unsure_readings: int = 0
    late_by_clock: int = 0
    episodes: list[Episode] = field(default_factory=list)
    panes: int = 0

    def __post_init__(self) -> None:
        self.count = np.zeros((0, len(self.names)), np.int64)
        self.total = np.zeros((0, len(self.names)))

    def pane(self, time_ms: int) -> int:
        """Row of an event time."""
        row = (time_ms - self.begin_ms) // PANE_MS
        while row >= len(self.count):
            more = max(64, len(self.count))
            self.count = np.vstack([self.count, np.zeros((more, len(self.names)), np.int64)])
            self.total = np.vstack([self.total, np.zeros((more, len(self.names)))])
        self.panes = max(self.panes, row + 1)
        return int(row)


@dataclass(slots=True)
class Second:
    """One second of one gateway. values: [moment, sensor]."""

    start_ms: int
    values: npt.NDArray[np.float64]


class Device:
    """All sensors of one gateway behind one HTTP connection."""

    def __init__(self, city: City, gateway: str, truth: Truth, seed: int) -> None:
        self.gateway = gateway
        self.names = [s.id for s in city.sensors.values() if s.gateway == gateway]
        self.first = truth.names.index(self.names[0])
        self.truth = truth
        self.rng = np.random.default_rng([seed, self.first])
        self.waiting: list[Second] = []
        self.url = self.token = ""
        self.ahead = False
        self._words = pa.array(self.names)
        self._more = asyncio.Event()
        self._over = False

    def say(self, second_ms: int) -> None:
        """Measure one second, to be sent as soon as the agent takes it."""
        n = len(self.names)
        values = self.rng.integers(0, 50 * 128, (PER_SECOND, n)).astype(np.float64) / 128
        for episode in self.truth.episodes:
            if episode.start_ms <= second_ms < episode.end_ms and episode.sensor in self.names:
                values[:, self.names.index(episode.sensor)] = HIGH
        self.truth.sent += values.size
        self.waiting.append(Second(second_ms, values))
        self._more.set()

    def _body(self, seconds: list[Second]) -> bytes:
        """All of it, moment by moment, as Arrow."""
        n, moments = len(self.names), PER_SECOND * len(seconds)
        step = np.arange(PER_SECOND, dtype=np.int64) * (1000 // PER_SECOND)
        times = np.concatenate([second.start_ms + step for second in seconds])
        table = pa.table({
            "sensor": pa.DictionaryArray.from_arrays(
                np.tile(np.arange(n, dtype=np.int32), moments), self._words
            ),
            "kind": pa.DictionaryArray.from_arrays(np.zeros(n * moments, np.int32), [KIND]),
            "time": np.repeat(times, n),
            "value": np.concatenate([second.values.ravel() for second in seconds]),
        })  # fmt: skip
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        return sink.getvalue().to_pybytes()

    def finish(self) -> None:
        """Nothing more is measured; `run` ends when everything has its answer."""
        self._over = True
        self._more.set()

    async def run(self) -> None:
        """Send one after the other, each until it is answered."""
        headers = {
            "authorization": f"Bearer {self.token}",
            "content-type": "application/vnd.apache.arrow.stream",
        }
        async with httpx.AsyncClient(headers=headers, timeout=10) as web:
            while True:
                if not self.waiting:
                    if self._over:
                        return
                    self._more.clear()
                    await self._more.wait()
                    continue
                seconds = self.waiting[:MOST_SECONDS]
                await self._send(web, seconds)
                del self.waiting[: len(seconds)]

    async def _send(self, web: httpx.AsyncClient, seconds: list[Second]) -> None:
        lost, body = 0, self._body(seconds)
        while True:
            ahead = self.ahead
            try:
                answer = await web.post(f"{self.url}/readings", content=body)
            except httpx.HTTPError:
                lost += 1
                await asyncio.sleep(0.2)
                continue
            if answer.status_code in (202, 422):
                self._answered(seconds, answer.json(), lost, ahead or self.ahead)
                return
            assert answer.status_code == 429 or answer.status_code >= 500, answer.text
            # An agent that ends in the middle of a request does not say what became of it.
            lost += answer.status_code >= 500
            await asyncio.sleep(0.5)

    def _answered(
        self, seconds: list[Second], said: dict[str, Any], lost: int, ahead: bool
    ) -> None:
        count, truth = sum(second.values.size for second in seconds), self.truth
        cells = slice(self.first, self.first + len(self.names))
        if said["accepted"] + said["duplicate"] == count:
            for second in seconds:
                row = truth.pane(second.start_ms)
                truth.count[row, cells] += PER_SECOND
                truth.total[row, cells] += second.values.sum(axis=0)
            truth.accepted += count
            truth.late_by_clock += count if ahead else 0
            return
        assert said["refused"] == count, f"neither all nor nothing: {said}"
        truth.refused[said["refusals"][0]["reason"]] += count
        if lost:
            truth.unsure_readings += count
            rows = [truth.pane(second.start_ms) for second in seconds]
            truth.unsure |= {(row, i) for row in rows for i in range(cells.start, cells.stop)}


class Load:
    """All devices, measuring once a second of the wall clock until stopped."""

    def __init__(self, city: City, seed: int, sensors_in_trouble: int = 400) -> None:
        now = int(time.time() * 1000)
        gateways = list(dict.fromkeys(s.gateway for s in city.sensors.values()))
        names = [s.id for g in gateways for s in city.sensors.values() if s.gateway == g]
        self.truth = Truth(names, now // PANE_MS * PANE_MS)
        self.devices = [Device(city, gateway, self.truth, seed) for gateway in gateways]
        rng = np.random.default_rng([seed, 1 << 20])
        chosen = rng.permutation(len(names))[:sensors_in_trouble]
        self._troubled = [names[i] for i in chosen]
        self._stop = asyncio.Event()

    async def run(self, episode_every_s: int = 10) -> None:
        """Until `stop`, and until everything is answered."""
        sending = [asyncio.create_task(device.run()) for device in self.devices]
        second = int(time.time()) + 1
        last = self.truth.begin_ms
        while not self._stop.is_set():
            await asyncio.sleep(max(0.0, second - time.time()))
            now_ms = second * 1000
            if self._troubled and now_ms - last >= episode_every_s * 1000:
                last = now_ms
                episode = Episode(self._troubled.pop(), now_ms, now_ms + EPISODE_MS)
                self.truth.episodes.append(episode)
            for device in self.devices:
                # A second later for each that is behind is no truth: every second is measured.
                device.say(now_ms - 1000)
                await asyncio.sleep(0)
            for task in sending:
                if task.done():
                    task.result()
            second += 1
        for device in self.devices:
            device.finish()
        await asyncio.gather(*sending)

    @property
    def waiting(self) -> int:
        """Seconds of gateways that no agent has taken yet."""
        return sum(len(device.waiting) for device in self.devices)

    def quieten(self) -> None:
        """No new episodes, so that all that there are can end."""
        self._troubled = []

    def stop(self) -> None:
        """Measure no more."""
        self._stop.set()
