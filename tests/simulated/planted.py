"""Faults put into the engine on purpose: each is one that somebody might well write."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from citybrain.city import City
from citybrain.stage import Out, Record
from citybrain.streams.rollup import Rollup
from citybrain.streams.shell import Manifest, Shell
from citybrain.streams.snapshots import MANIFEST, KafkaStore
from citybrain.topics import full_name
from tests.simulated.loop import OWNER
from tests.simulated.rollups import Choking


class AcknowledgesFirst(Shell):
    """Acknowledges what it is about to save."""

    async def snapshot(self) -> None:
        if self.next_offset is not None:
            await self._acknowledge(self.next_offset)
        await super().snapshot()


class WaitsForNothing(Shell):
    """Saves and acknowledges before the broker has the outputs."""

    async def snapshot(self) -> None:
        self._unacknowledged.clear()
        await super().snapshot()


class SkipsOneMore(Shell):
    """Takes the first record behind its state for one that the state holds."""

    async def take(self, record: Record) -> bool:
        if record.offset == self.next_offset == self.saved_offset and self.taken == 0:
            self.next_offset += 1
            return False
        return await super().take(record)


class SkipsOneLess(Shell):
    """Takes the last record of its state once more."""

    async def open(self) -> int | None:
        offset = await super().open()
        if self.next_offset:
            self.next_offset -= 1
        return offset


class ManifestFirst(KafkaStore):
    """Writes without a transaction, the manifest before its blocks."""

    async def save(
        self, manifest: Manifest, blocks: Mapping[str, bytes], outs: Sequence[Out]
    ) -> None:
        owner = OWNER.get()
        assert owner is not None
        broker = owner.world.broker
        state = {MANIFEST: msgspec.json.encode(manifest), **blocks}
        for name, value in state.items():
            key = f"{self._prefix}{name}".encode()
            broker.write(None, 0, (self.topic, self.partition), key, value or None, ())
            await owner.world.loop.pause()
        for out in outs:
            place = (full_name(self._city, out.topic), 0)
            broker.write(None, 0, place, out.key, out.value or None, ())


class ForgetsRevisions(Choking):
    """Tells late readings as if they were the first word on their window."""

    def _tell(self, told: Any) -> None:
        super()._tell(
            replace(one, head=msgspec.structs.replace(one.head, revision=0)) for one in told
        )


class ClosesByClock(Choking):
    """Closes windows by the wall clock."""

    def _pass(self, record: Record) -> None:
        owner = OWNER.get()
        assert owner is not None
        self._gateways.watermark_ms = owner.world.now_ms - 8_000
        super()._pass(record)


def _stage(kind: type[Rollup]) -> dict[str, object]:
    def make(city: City, partition: int) -> Rollup:
        return kind(city, partition)

    return {"stage": make}


FAULTS: dict[str, dict[str, Any]] = {
    "acknowledges before the snapshot is durable": {"shell": AcknowledgesFirst},
    "saves before its outputs are acknowledged": {"shell": WaitsForNothing},
    "skips a record too many": {"shell": SkipsOneMore},
    "skips a record too few": {"shell": SkipsOneLess},
    "writes the manifest before its blocks": {"store": ManifestFirst},
    "forgets the revision": _stage(ForgetsRevisions),
    "closes by the wall clock": _stage(ClosesByClock),
    "has no fence": {"fence": False},
}
"""What is planted -> what of the engine is replaced."""
