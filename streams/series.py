"""One kind of reading in one shard: its door, its windows, its saved state."""

from collections.abc import Callable, Iterator, Mapping

import msgspec
import numpy as np

from citybrain import stats
from citybrain.batch import Batch
from citybrain.columns import Roster
from citybrain.kinds import Kind
from citybrain.models.panes import CHUNK
from citybrain.models.windows import Added, Closed, Windows
from citybrain.stage import Record
from citybrain.streams import blocks
from citybrain.streams.screen import Screen, Screened


class _State(msgspec.Struct, kw_only=True):
    """What of a series is not in panes. late_*: the record that brought the latest late reading."""

    version: int = blocks.VERSION
    closed_ms: int | None = None
    newest_ms: int | None = None
    generated: bool = False
    late_offset: int = 0
    late_ms: int = 0
    width: int = 0
    marks: dict[str, int] = {}


class Series:
    """All windows of one kind for the sensors of one shard."""

    def __init__(
        self, shard: str, kind: Kind, names: tuple[str, ...], pack: str,
        absent: Callable[[int, int], tuple[str, ...]] = lambda start_ms, end_ms: (),
    ) -> None:  # fmt: skip
        self.shard, self.kind, self.names, self.pack = shard, kind, names, pack
        self._absent = absent
        self._screen = Screen(kind, names)
        self._windows = self._fresh()
        self._state = _State()
        self._named = False
        self._gone: list[str] = []
        self._rosters = [
            Roster(names[i : i + stats.PART]) for i in range(0, len(names), stats.PART)
        ]

    @property
    def pending(self) -> bool:
        """Whether a revision is due."""
        return self._windows.pending

    def screen(self, batch: Batch, latest_ms: int) -> Screened:
        """Judge the rows of a batch."""
        return self._screen.screen(batch, latest_ms)

    def add(self, rows: Screened, order: int, generated: bool, record: Record) -> Added:
        """Count screened rows; those that are too old are given back as rows of `rows`."""
        added = self._windows.add(rows.sensor, rows.time_ms, rows.value, order)
        state = self._state
        if added.counted:
            state.newest_ms = max(added.newest_ms, state.newest_ms or added.newest_ms)
            state.generated |= generated
        if added.late:
            state.late_offset, state.late_ms = record.offset, record.timestamp_ms
        return added

    def advance(self, watermark_ms: int, cause: Record) -> Iterator[stats.Stats]:
        """Close what the watermark has passed.

        It is taken to be no more than a ring behind the newest reading, so that one gateway
        that lags cannot make the state grow.
        """
        newest = self._state.newest_ms
        if newest is not None:
            watermark_ms = max(watermark_ms, newest - self.kind.ring_ms)
        for closed in self._windows.advance(watermark_ms):
            yield from self._tell(closed, cause.offset, cause.timestamp_ms)

    def revisions(self) -> Iterator[stats.Stats]:
        """What late readings changed."""
        for closed in self._windows.revisions():
            yield from self._tell(closed, self._state.late_offset, self._state.late_ms)

    def changed(self) -> dict[str, bytes]:
        """State blocks that changed."""
        out = dict.fromkeys(self._gone, b"")
        self._gone = []
        state, name = self._state, self.kind.name
        state.closed_ms, state.marks = self._windows.closed_ms, self._windows.marks()
        state.width = len(self.names)
        out[f"kind/{name}"] = msgspec.json.encode(state)
        if not self._named:
            for i in range(0, len(self.names), CHUNK):
                part = msgspec.json.encode(self.names[i : i + CHUNK])
                out[f"names/{name}/{i // CHUNK}"] = part
            self._named = True
        for pane, arrays in self._windows.changed():
            out[f"pane/{name}/{pane}"] = b"" if arrays is None else blocks.encode(arrays)
        return out

    def restore(self, saved: Mapping[str, bytes]) -> None:
        """Become what blocks of `changed` described; the pack may have other sensors since.

        Raises InvalidInput `version`.
        """
        name = self.kind.name
        head = saved.get(f"kind/{name}")
        if head is None:
            return
        self._state = state = msgspec.json.decode(head, type=_State)
        blocks.check(f"kind/{name}", state.version)
        before: list[str] = []
        for i in range(0, state.width, CHUNK):
            before += msgspec.json.decode(saved[f"names/{name}/{i // CHUNK}"], type=list[str])
        place = None
        self._named = tuple(before) == self.names
        if not self._named:
            number = {sensor: i for i, sensor in enumerate(self.names)}
            place = np.array([number.get(sensor, -1) for sensor in before], np.intp)
            known = range(-(-len(self.names) // CHUNK), -(-state.width // CHUNK))
            self._gone += [f"names/{name}/{chunk}" for chunk in known]
        prefix = f"pane/{name}/"
        panes = {
            key.removeprefix(prefix): blocks.decode(key, block)
            for key, block in saved.items()
            if key.startswith(prefix)
        }
        self._windows = self._fresh()
        self._windows.restore(state.closed_ms, state.marks, panes, place)

    def _fresh(self) -> Windows:
        kind = self.kind
        return Windows(
            len(self.names), kind.windows_ms, kind.rolling_ms, kind.delay_ms, kind.ring_ms
        )

    def _tell(self, closed: Closed, offset: int, at_ms: int) -> Iterator[stats.Stats]:
        count = len(closed.sensor)
        parts = -(-count // stats.PART)
        for part in range(parts):
            rows = slice(part * stats.PART, min(count, (part + 1) * stats.PART))
            if closed.revision == 0:
                roster = self._rosters[part]
            else:
                changed = closed.sensor[rows].tolist()
                roster = Roster(tuple(self.names[i] for i in changed))
            head = stats.StatsHead(
                shard=self.shard,
                kind=self.kind.name,
                window_ms=closed.window_ms,
                step_ms=closed.step_ms,
                start_ms=closed.start_ms,
                revision=closed.revision,
                expected=self.kind.expected(closed.window_ms),
                cause_offset=offset,
                cause_ms=at_ms,
                generated=self._state.generated,
                pack=self.pack,
                absent=self._absent(closed.start_ms, closed.start_ms + closed.window_ms),
                part=part,
                parts=parts,
            )
            yield stats.Stats(
                head,
                roster,
                np.arange(rows.stop - rows.start, dtype=np.int32),
                *(getattr(closed, column)[rows] for column in _COLUMNS),
            )


_COLUMNS = ("seen", "late", "sum", "sumsq", "min", "max", "last", "last_ms")
