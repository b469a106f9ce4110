"""What the historian makes of each record: rows to store, repeats to refuse, late blocks.

The readings log may hold a batch twice (a gateway that did not hear the broker's answer sends
it again); the same rule as the engine's refuses it: (gateway, incarnation, shard) counts its
batches upwards. The backfill log says which windows the engine has left to history.
"""

from citybrain import batch
from citybrain.batch import Batch
from citybrain.columns import Rosters
from citybrain.history import rows
from citybrain.history.rows import Row, Rows
from citybrain.stage import Record

BLOCK_MS = 3_600_000
"""History is recomputed by whole hours of event time."""


class Intake:
    """Keeps what must outlive one record: sequence numbers and blocks gone stale."""

    def __init__(self, sequences: dict[tuple[str, str, str], int]) -> None:
        self._rosters = Rosters()
        self._last = sequences
        self.sequences: dict[tuple[str, str, str], int] = {}
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
        head = got.head
        key = (head.gateway, head.incarnation, head.shard)
        if head.seq <= self._last.get(key, -1):
            self.repeats += 1
            return None
        self._last[key] = self.sequences[key] = head.seq
        return rows.readings(got, record.timestamp_ms)

    def _late(self, record: Record) -> None:
        got = batch.decode(record.value, self._rosters)
        if not isinstance(got, Batch) or not len(got):
            return
        first, last = int(got.time_ms.min()) // BLOCK_MS, int(got.time_ms.max()) // BLOCK_MS
        for block in range(first, last + 1):
            key = (got.head.kind, block * BLOCK_MS)
            self.stale[key] = max(self.stale.get(key, 0), record.timestamp_ms)
