"""A readings log of one shard that a test writes and a rollup stage reads at once."""

from collections.abc import Sequence

import msgspec
import numpy as np

from citybrain import batch as readings
from citybrain import findings, stats
from citybrain.batch import Batch, BatchHead, Heartbeat
from citybrain.city import City
from citybrain.columns import Roster, Rosters
from citybrain.stage import Out, Record
from citybrain.streams.rollup import Rollup


class ShardLog:
    """Writes batches and heartbeats of any gateway; keeps all that the stage answered."""

    def __init__(self, city: City, shard: str) -> None:
        self.city, self.shard = city, shard
        self.stage = Rollup(city, city.shards[shard])
        self.offset = 0
        self.records: list[Record] = []
        self.out: list[Out] = []
        self.seq: dict[tuple[str, str], int] = {}

    def raw(self, value: bytes, at_ms: int, headers: tuple = ()) -> Sequence[Out]:
        record = Record("readings", self.stage.partition, self.offset, at_ms, value, None, headers)
        self.offset += 1
        self.records.append(record)
        out = list(self.stage.apply(record))
        self.out += out
        return out

    def batch(
        self,
        gateway: str,
        kind: str,
        rows: list[tuple[str, int, float]],
        watermark_ms: int,
        at_ms: int | None = None,
        **more: object,
    ) -> Sequence[Out]:
        incarnation = str(more.pop("incarnation", "a"))
        seq = more.pop("seq", None)
        if seq is None:
            seq = self.seq.get((gateway, incarnation), 0)
            self.seq[gateway, incarnation] = seq + 1
        names = tuple(dict.fromkeys(sensor for sensor, _, _ in rows))
        at_ms = at_ms or watermark_ms
        quality = more.pop("quality", 0)
        head = BatchHead(
            gateway=gateway, incarnation=incarnation, shard=str(more.pop("shard", self.shard)),
            seq=seq, kind=kind, watermark_ms=watermark_ms, sent_ms=at_ms, **more,
        )  # fmt: skip
        batch = Batch(
            head,
            Roster(names),
            np.array([names.index(s) for s, _, _ in rows], np.int32),
            np.array([t for _, t, _ in rows], np.int64),
            np.array([v for _, _, v in rows], np.float64),
            np.full(len(rows), quality, np.uint8),
        )
        value = readings.encode(batch)
        return self.raw(value, at_ms, (("n", str(len(rows)).encode()),))

    def beat(
        self, gateway: str, watermark_ms: int, at_ms: int | None = None, leaving: bool = False
    ) -> Sequence[Out]:
        record = Heartbeat(
            gateway=gateway, incarnation="a", shard=self.shard, watermark_ms=watermark_ms,
            sent_ms=at_ms or watermark_ms, leaving=leaving,
        )  # fmt: skip
        return self.raw(readings.encode_control(record), at_ms or watermark_ms)

    def windows(self, out: Sequence[Out] | None = None) -> list[stats.Stats]:
        entries = [
            stats.decode(o.value, Rosters())
            for o in (self.out if out is None else out)
            if o.topic == "stats"
        ]
        return [entry for entry in entries if isinstance(entry, stats.Stats)]

    def letters(self) -> list[findings.DeadLetter]:
        return [
            msgspec.json.decode(o.value, type=findings.DeadLetter)
            for o in self.out
            if o.topic == "dead-letter"
        ]

    def count(self, fate: str) -> int:
        return self.stage.counts()[fate]
