"""How far all shards have come, and which of them are not waited for.

The frontier is the least progress of the shards that are waited for; it never goes back. A
promise is the furthest progress that anybody had reported at some moment. If the frontier has
not reached a promise `patience_ms` after it was received, the shards that hold it back are
left out, by a record in the log. A shard is waited for again once it has caught up with the
frontier, so that a shard with hours to make up holds nobody back meanwhile.
"""

from collections.abc import Container, Iterable

import msgspec

from citybrain.findings import LeaveOutShard, Progress

PATIENCE_MS = 60_000


class ShardProgress(msgspec.Struct):
    """How far one shard has come, in event time; -1 before its first word."""

    through_ms: int = -1
    left_out: bool = False


class FrontierState(msgspec.Struct):
    """All that a frontier knows. promised_ms is event time, received_ms broker's time."""

    now_ms: int
    shards: dict[str, ShardProgress]
    promised_ms: int = -1
    received_ms: int = 0


class Frontier:
    """The frontier of a city's shards. Those that are not `expected` are waited for from their
    first word on.
    """

    def __init__(
        self, shards: Iterable[str], expected: Container[str], patience_ms: int = PATIENCE_MS
    ) -> None:
        self.state = FrontierState(
            0, {s: ShardProgress(left_out=s not in expected) for s in sorted(shards)}
        )
        self._patience_ms = patience_ms

    @property
    def now_ms(self) -> int:
        """Event time that all shards that are waited for have passed."""
        return self.state.now_ms

    def restore(self, state: FrontierState) -> None:
        """Go on from a saved state, with the shards that the city has now."""
        shards = {s: state.shards.get(s, fresh) for s, fresh in self.state.shards.items()}
        self.state = msgspec.structs.replace(state, shards=shards)

    def heard(self, progress: Progress, received_ms: int) -> bool:
        """A shard has come further. False if the city has no such shard."""
        shard = self.state.shards.get(progress.shard)
        if shard is None:
            return False
        shard.through_ms = max(shard.through_ms, progress.through_ms)
        if shard.through_ms >= self.state.now_ms:
            shard.left_out = False
        self._move(received_ms)
        return True

    def leave_out(self, record: LeaveOutShard, received_ms: int) -> None:
        """Wait for a shard no longer, unless it has moved since that was decided, or the clock
        of whoever decided it was ahead of the broker's."""
        shard = self.state.shards.get(record.shard)
        due = received_ms - self.state.received_ms >= self._patience_ms
        if shard and due and shard.through_ms == record.through_ms:
            shard.left_out = True
            self._move(received_ms)

    def overdue(self, now_ms: int) -> list[LeaveOutShard]:
        """What to write into the log, by the wall clock, so that the others can go on."""
        if self.state.promised_ms <= self.state.now_ms:
            return []
        if now_ms - self.state.received_ms < self._patience_ms:
            return []
        return [
            LeaveOutShard(shard=name, through_ms=shard.through_ms, at_ms=now_ms)
            for name, shard in sorted(self.state.shards.items())
            if not shard.left_out and shard.through_ms < self.state.promised_ms
        ]

    def _move(self, received_ms: int) -> None:
        state = self.state
        waited = [s.through_ms for s in state.shards.values() if not s.left_out]
        state.now_ms = max(state.now_ms, min(waited, default=state.now_ms))
        if state.now_ms >= state.promised_ms:
            state.promised_ms = max(s.through_ms for s in state.shards.values())
            state.received_ms = received_ms
