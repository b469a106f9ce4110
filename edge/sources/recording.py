"""Recording source: plays a Parquet recording into the readings log at a chosen speed.

The log is the one that `citybrain.recording.cut` makes of the file, so a live engine and a
replay read the same. The file's hash is the incarnation: sent twice, it counts once; stopped
and started again, it goes on where it was.
"""

import asyncio
import hashlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Annotated

import msgspec

from citybrain import log
from citybrain.batch import Batch, Heartbeat
from citybrain.edge.sources.base import Context, SourceConfig
from citybrain.edge.spool import SpoolFull
from citybrain.errors import SetupError
from citybrain.process import Health
from citybrain.recording import cut, facts

_ITEMS = 512
_AHEAD_BYTES = 32 << 20


class RecordingConfig(SourceConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[sources.recording]. speed: 1 plays in real time, 0 as fast as possible."""

    file: str
    speed: Annotated[float, msgspec.Meta(ge=0)] = 1.0
    exit_at_end: bool = False


class RecordingSource:
    """Plays one file. Raises SetupError or InvalidInput if it cannot be read."""

    pushes = False

    def __init__(self, config: RecordingConfig, context: Context) -> None:
        self._config = config
        self._context = context
        self._path = Path(config.file)
        self._log = log.get("edge.recording")
        if not self._path.is_file():
            raise SetupError(f"sources.recording: file: {self._path}: no such file")
        self._facts = facts(self._path)
        self.incarnation = incarnation_of(self._path)
        self._done = 0
        self._event_ms = 0
        self._over = False

    def health(self) -> Health:
        """It plays, or is over."""
        return Health(ok=True, facts={
            "recording_readings": self._facts.rows, "recording_sent": self._done,
            "recording_event_ms": self._event_ms, "recording_over": int(self._over),
        })  # fmt: skip

    async def run(self, ready: asyncio.Event) -> None:
        """Play to the end, from where an earlier run had come to."""
        intake = self._context.intake
        begin = intake.ledger.cursors.get(self.incarnation, -1) + 1
        items = enumerate(cut(self._path, self._context.city, incarnation=self.incarnation))
        await asyncio.to_thread(_skip, items, begin)
        self._log.info("playing", file=str(self._path), rows=self._facts.rows, item=begin)
        ready.set()
        loop = asyncio.get_running_loop()
        wall, event = loop.time(), 0
        held: list[tuple[int, Batch | Heartbeat]] = []
        while held or (held := await asyncio.to_thread(_take, items)):
            if self._config.speed:
                event = event or _due_ms(held[0][1])
                at = wall + (_due_ms(held[0][1]) - event) / 1000 / self._config.speed
                await asyncio.sleep(max(0.0, at - loop.time()))
                now = event + (loop.time() - wall) * 1000 * self._config.speed
                due = [item for item in held if _due_ms(item[1]) <= now] or held[:1]
            else:
                due = held
            await self._put(due)
            held = held[len(due) :]
        self._over = True
        self._log.info("recording is over", rows=self._done)
        if not self._config.exit_at_end:
            await asyncio.Event().wait()

    async def _put(self, items: list[tuple[int, Batch | Heartbeat]]) -> None:
        """Store items, in step with the sender: a recording can wait, so nothing overflows."""
        intake = self._context.intake
        ahead = min(_AHEAD_BYTES, intake.spool.max_bytes // 2)
        while True:
            while intake.spool.backlog_bytes > ahead:  # noqa: ASYNC110  # a size has no event
                await asyncio.sleep(0.05)
            try:
                await intake.put_recorded(items)
                break
            except SpoolFull as error:
                self._log.warning("waiting for room", why=str(error))
                await asyncio.sleep(1)
        self._done += sum(len(item) for _, item in items if isinstance(item, Batch))
        self._event_ms = _due_ms(items[-1][1])


def incarnation_of(path: Path) -> str:
    """The incarnation under which a file is sent: the hash of its content."""
    with path.open("rb") as file:
        return "r" + hashlib.file_digest(file, "sha256").hexdigest()[:15]


def _due_ms(item: Batch | Heartbeat) -> int:
    """Event time at which a live source would have said this."""
    return item.head.sent_ms if isinstance(item, Batch) else item.sent_ms


def _take(items: Iterator[tuple[int, Batch | Heartbeat]]) -> list[tuple[int, Batch | Heartbeat]]:
    return list(islice(items, _ITEMS))


def _skip(items: Iterator[tuple[int, Batch | Heartbeat]], count: int) -> None:
    for _ in islice(items, count):
        pass
