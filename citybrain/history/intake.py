"""What the historian makes of each record: rows to store, repeats to refuse, late blocks.

The readings log may hold a batch twice (a gateway that did not hear the broker's answer sends
it again); the same rule as the engine's refuses it. The backfill log says which windows the
engine has left to history; the readings themselves are in the readings log already.
"""

from collections.abc import Mapping

from citybrain import batch
from citybrain.batch import Batch
from citybrain.columns import Rosters
from citybrain.history import rows
from citybrain.history.rows import Row, Rows
from citybrain.kinds import HOUR, Kind
from citybrain.sequences import Sequence
from citybrain.stage import Record


def block_ms(kind: Kind) -> int:
    """History is recomputed by blocks of event time: an hour, or more where windows are longer."""
    longest = kind.windows_ms[-1]
    return -(-HOUR // longest) * longest


class Intake:
    """Keeps what must outlive one record: sequence numbers and blocks gone stale."""

    def __init__(
        self, kinds: Mapping[str, Kind], had: Mapping[tuple[str, str, str], Sequence]
    ) -> None:
        self._rosters = Rosters()
        self._kinds = kinds
        self._had = dict(had)
        self.sequences: dict[tuple[str, str, str], Sequence] = {}
        self.stale: dict[tuple[str, int], int] = {}
        self.repeats = 0

    def take(self, record: Record) -> Rows | Row | None:
        """The rows of a record. Raises InvalidInput if it cannot be read."""
        if record.topic == "readings":
            return self._readings(record)
        if record.topic == "backfill":
            self._late(record)
            return None
        return rows.decode(record, self._rosters)

    def flushed(self) -> None:
        """What had changed is durable now."""
        self.sequences = {}
        self.stale = {}

    def _readings(self, record: Record) -> Rows | None:
        got = batch.decode(record.value, self._rosters)
        if not isinstance(got, Batch) or not len(got):
            return None
        key = (got.head.gateway, got.head.incarnation, got.head.shard)
        had = self._had.setdefault(key, Sequence())
        new, _ = had.take(got.head.seq)
        if not new:
            self.repeats += 1
            return None
        self.sequences[key] = had
        return rows.readings(got, record.timestamp_ms)

    def _late(self, record: Record) -> None:
        got = batch.decode(record.value, self._rosters)
        kind = self._kinds.get(got.head.kind) if isinstance(got, Batch) else None
        if kind is None or not isinstance(got, Batch) or not len(got):
            return
        step = block_ms(kind)
        for block in range(int(got.time_ms.min()) // step, int(got.time_ms.max()) // step + 1):
            key = (kind.name, block * step)
            self.stale[key] = max(self.stale.get(key, 0), record.timestamp_ms)
