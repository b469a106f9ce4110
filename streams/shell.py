"""The shell around a stage: the one loop in which records become durable state.

    open       restore the last whole snapshot; the log is read from its offset on
    take       skip what the snapshot holds already, apply, publish
    snapshot   outputs acknowledged -> state blocks, outputs to compacted topics and the
               manifest with the next offset, in one transaction -> only then acknowledge
    close      a last snapshot, as long as the partition is still ours

It knows neither Kafka nor Faust: the store, the publisher and the acknowledgement are passed
in, so that crashes at every step can be played through in one process.

Whatever goes wrong here ends the process; its supervisor starts it again. A record at which
`apply` fails twice is poison: it goes to the dead letter with its traceback, the manifest
says so, and the shard goes on.
"""

import asyncio
import traceback
import zlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

import msgspec

from citybrain import findings
from citybrain.clock import Clock
from citybrain.errors import BrokerError, InvalidInput
from citybrain.stage import Out, Record, Refusing, Stage

VERSION = 1
SHARE = 20
"""Between two snapshots there is at least so many times the time for which one stops the shell;
sending what it then has costs about as much again, while records are taken."""
LONGEST_MS = 10_000
_TRACE = 4_000


class Failure(msgspec.Struct, frozen=True):
    """A record at which `apply` failed, and with what."""

    offset: int
    trace: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What makes a set of blocks a state.

    next_offset: the first record that the state does not hold. blocks, check: how many
    blocks there are, and the sum of their checksums. failed: where the last process ended.
    skip: poisoned records at or after next_offset.
    """

    version: int = VERSION
    next_offset: int
    blocks: int = 0
    check: int = 0
    failed: Failure | None = None
    skip: list[Failure] = []


class Store(Protocol):
    """Durable state of one stage and partition; whoever loads shuts out every earlier owner."""

    async def load(self) -> tuple[Manifest | None, Mapping[str, bytes]]:
        """Become the owner; the last whole manifest and all blocks."""

    async def save(
        self, manifest: Manifest, blocks: Mapping[str, bytes], outs: Sequence[Out]
    ) -> None:
        """All or nothing; b"" deletes a block. Raises if another owner has loaded since."""

    async def close(self) -> None:
        """Let go."""


Publish = Callable[[Sequence[Out]], Awaitable[Awaitable[object]]]
"""Sends records in order; what it gives back is done when the broker has all of them."""

Acknowledge = Callable[[int], Awaitable[None]]
"""Everything below this offset is done with."""

Look = Callable[[int, int], Awaitable[tuple[int, int | None]]]
"""The first offset that the log still has, and that of its first record in [start, end)."""


class Shell:
    """One stage on one partition.

    fenced: topics whose records are written in the snapshot's transaction, since a later
    record there replaces an earlier one and an owner that is none any more must not write.
    look: asked where offsets are missing. `lost` counts records that the log has dropped, by
    its retention, before they were read. timer: measures `apply`, `publish`,
    `encode` and `save`.
    """

    def __init__(
        self,
        name: str,
        partition: int,
        make: Callable[[], Stage],
        store: Store,
        publish: Publish,
        acknowledge: Acknowledge,
        clock: Clock,
        fenced: frozenset[str],
        look: Look,
        snapshot_ms: int = 1_000,
        timer: Callable[[str], AbstractContextManager[None]] | None = None,
    ) -> None:
        self.name, self.partition = name, partition
        self.stage = make()
        self._store, self._publish, self._acknowledge = store, publish, acknowledge
        self._clock, self._fenced, self._snapshot_ms = clock, fenced, snapshot_ms
        self._look = look
        self._timer = timer or (lambda _: nullcontext())
        self.lost = self.taken = 0
        self.written: dict[str, int] = {}
        self.next_offset: int | None = None
        self.saved_offset: int | None = None
        self.applied_ms = self.record_ms = 0
        self._manifest: Manifest | None = None
        self._checks: dict[str, int] = {}
        # Blocks of a state that was not whole; they go with the next snapshot.
        self._stale: tuple[str, ...] = ()
        self._unacknowledged: list[Awaitable[object]] = []
        self._held: list[Out] = []
        self._saved_ms = clock()
        self._took_ms = 0
        self._broken = False
        self._saving, self._handing = asyncio.Lock(), asyncio.Lock()

    async def open(self) -> int | None:
        """Restore; the offset to read from, None for the beginning of the log.

        State of an older form is not guessed at but rebuilt from the log. Raises InvalidInput
        `version` for state of a newer form: this process is the one that is out of date.
        """
        manifest, blocks = await self._store.load()
        if manifest is not None and manifest.version > VERSION:
            raise InvalidInput(
                "version", f"{self._who}: manifest version {manifest.version}, known is {VERSION}"
            )
        checks = {name: _checksum(name, block) for name, block in blocks.items()}
        if (
            manifest is None
            or manifest.version < VERSION
            or (len(checks), sum(checks.values())) != (manifest.blocks, manifest.check)
        ):
            # Nothing, or not all of it: only the log itself still knows.
            self._stale = tuple(blocks)
            return None
        self._checks = checks
        if blocks:
            self.stage.restore(blocks)
        self._manifest = manifest
        self.next_offset = self.saved_offset = manifest.next_offset
        return manifest.next_offset

    def begin(self, offset: int) -> None:
        """Where the log begins, if nothing was restored: no record after it may come first."""
        if self.next_offset is None:
            self.next_offset = self.saved_offset = offset

    async def take(self, record: Record) -> bool:
        """Apply one record and publish what follows; False if the state holds it already."""
        if self.next_offset is None:
            self.saved_offset = self.next_offset = record.offset
        if record.offset < self.next_offset:
            return False
        if record.offset > self.next_offset:
            await self._over_gap(record.offset)
        failure = None
        # A snapshot must not come between a change of the state and what follows from it.
        async with self._handing:
            try:
                outs = self._apply(record)
            except Exception as error:  # noqa: BLE001  # raised again once it is noted
                # The stage may have changed half of its state: none of it is saved any more.
                failure, self._broken = error, True
            else:
                self.next_offset = record.offset + 1
                self.taken += 1
                self.applied_ms, self.record_ms = self._clock(), record.timestamp_ms
                await self._send(outs)
        if failure is not None:
            trace = "".join(traceback.format_exception(failure))[-_TRACE:]
            await self._note(Failure(record.offset, trace))
            raise failure
        return True

    async def tick(self, now_ms: int) -> Sequence[Out]:
        """Let the stage ask for control records; returns what was written into its log.

        What was taken before the broker had it shows that our clock is behind the broker's.
        """
        outs = self.stage.tick(now_ms + max(0, self.record_ms - self.applied_ms))
        await self._send(outs)
        return outs

    @property
    def due_ms(self) -> int | None:
        """In how long there is something to make durable that has waited long enough."""
        if self._saving.locked() or (self.next_offset == self.saved_offset and not self._held):
            return None
        wait = max(self._snapshot_ms, min(LONGEST_MS, SHARE * self._took_ms))
        rest = self._saved_ms + wait - self._clock()
        # A clock that was set back must not put it off.
        return max(0, rest) if rest <= wait else 0

    @property
    def due(self) -> bool:
        """Whether that is now."""
        return self.due_ms == 0

    async def snapshot(self) -> None:
        """Make everything up to here durable, then acknowledge it.

        What is saved is fixed when this begins to save; records may be taken meanwhile.
        """
        async with self._saving:
            begin = self._clock()
            async with self._handing:
                offset = self.next_offset
                if (
                    self._broken
                    or offset is None
                    or (offset == self.saved_offset and not self._held)
                ):
                    return
                blocks = dict.fromkeys(self._stale, b"")
                blocks |= self.stage.changed()
                self._stale = ()
                held, self._held = self._held, []
                sent, self._unacknowledged = self._unacknowledged, []
            for name, block in blocks.items():
                if block:
                    self._checks[name] = _checksum(name, block)
                else:
                    self._checks.pop(name, None)
            old = self._manifest
            self._took_ms = self._clock() - begin
            manifest = Manifest(
                next_offset=offset,
                blocks=len(self._checks),
                check=sum(self._checks.values()),
                skip=[f for f in old.skip if f.offset >= offset] if old else [],
            )
            with self._timer("save"):
                await asyncio.gather(*sent)
                await self._store.save(manifest, blocks, held)
            self._manifest = manifest
            self._saved_ms = self._clock()
            self.saved_offset = offset
            await self._acknowledge(offset)

    async def close(self) -> None:
        """Save a last time and let go; the partition must still be ours."""
        await self.snapshot()
        await self._store.close()

    async def drop(self) -> None:
        """Let go without saving: the partition is somebody else's, or the process fails."""
        await self._store.close()

    @property
    def _who(self) -> str:
        return f"{self.name}/{self.partition}"

    async def _over_gap(self, offset: int) -> None:
        """Offsets are missing: go on if the log has nothing there (any more), else end.

        Transactions leave offsets without a record; a record that was skipped is a fault.
        """
        assert self.next_offset is not None
        start, record = await self._look(self.next_offset, offset)
        if record is not None:
            raise BrokerError(f"{self._who}: got record {offset} while {record} was expected")
        self.lost += max(0, min(start, offset) - self.next_offset)

    async def _send(self, outs: Sequence[Out]) -> None:
        plain = [out for out in outs if out.topic not in self._fenced]
        self._held += [out for out in outs if out.topic in self._fenced]
        for out in outs:
            self.written[out.topic] = self.written.get(out.topic, 0) + 1
        if plain:
            with self._timer("publish"):
                self._unacknowledged.append(await self._publish(plain))

    def _apply(self, record: Record) -> Sequence[Out]:
        poison = self._poison(record.offset)
        if poison is not None:
            return self._refuse(record, poison)
        with self._timer("apply"):
            return self.stage.apply(record)

    def _poison(self, offset: int) -> Failure | None:
        skip = self._manifest.skip if self._manifest else ()
        return next((failure for failure in skip if failure.offset == offset), None)

    async def _note(self, failure: Failure) -> None:
        """Remember where we fail; the second time at the same record it is to be skipped."""
        async with self._saving:
            first = self.saved_offset
            assert first is not None
            old = self._manifest or Manifest(next_offset=first)
            again = old.failed is not None and old.failed.offset == failure.offset
            new = (
                msgspec.structs.replace(old, failed=None, skip=[*old.skip, failure])
                if again
                else msgspec.structs.replace(old, failed=failure)
            )
            stale = dict.fromkeys(self._stale, b"")
            await self._store.save(new, stale, [])

    def _refuse(self, record: Record, failure: Failure) -> Sequence[Out]:
        message = f"failed twice in {self._who}: {failure.trace}"
        if isinstance(self.stage, Refusing):
            return self.stage.refuse(record, "poison", message)
        letter = findings.DeadLetter(
            id=f"{self._who}/{record.offset}/poison",
            step=self.name,
            reason="poison",
            message=message,
            at_ms=record.timestamp_ms,
            original=record.value,
            retry_topic=record.topic,
            retry_partition=record.partition,
        )
        return [Out("dead-letter", findings.encode(letter), letter.id.encode())]


def _checksum(name: str, block: bytes) -> int:
    return zlib.crc32(block, zlib.crc32(name.encode()))
