"""Recordings: one Parquet file of readings, and THE rule that cuts it into a readings log.

Columns `time` (int64, UTC ms), `sensor`, `kind` (text), `value` (float64, on the kind's
grid), `quality` (uint8), in ascending order of time. The edge agent's recording source and
`citybrain replay` use this one rule, so a live engine and a replay read the same log:

* Event time is cut into steps of the shortest pane of the city's kinds, aligned to 1970.
* In a step, every (shard, gateway) in turn says, kind by kind, one batch; its last batch
  carries the end of the step as watermark, the others the watermark before. A gateway
  without readings in the step says a heartbeat instead.
* A hole longer than a day is crossed in one go, so a stray year costs nothing.
* After the last step, heartbeats close every window that holds a reading.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from citybrain.batch import Batch, BatchHead, Heartbeat
from citybrain.city import City
from citybrain.errors import InvalidInput
from citybrain.grid import snap
from citybrain.kinds import DAY
from citybrain.layout import Layout

SCHEMA = pa.schema(
    [
        ("time", pa.int64()),
        ("sensor", pa.string()),
        ("kind", pa.string()),
        ("value", pa.float64()),
        ("quality", pa.uint8()),
    ]
)
_CHUNK = 1 << 18


@dataclass(frozen=True, slots=True)
class Facts:
    """What a recording holds. Times are event times in UTC ms; -1 where it is empty."""

    rows: int
    first_ms: int
    last_ms: int


def facts(path: Path) -> Facts:
    """Rows and span of a recording, from its footer. Raises InvalidInput as `cut`."""
    file = _open(path)
    meta = file.metadata
    if not meta.num_rows:
        return Facts(0, -1, -1)
    column = meta.schema.names.index("time")
    spans = [meta.row_group(i).column(column).statistics for i in range(meta.num_row_groups)]
    if all(span is not None and span.has_min_max for span in spans):
        return Facts(meta.num_rows, min(s.min for s in spans), max(s.max for s in spans))
    times = [b.column(0).to_numpy() for b in _batches(path, file, ["time"])]
    return Facts(meta.num_rows, int(times[0][0]), int(times[-1][-1]))


@dataclass(frozen=True, slots=True)
class _Rows:
    """Checked rows: group, position in the group's roster, time, value, quality."""

    columns: tuple[npt.NDArray[Any], ...]

    def take(self, index: Any) -> "_Rows":
        return _Rows(tuple(column[index] for column in self.columns))

    def after(self, before: "_Rows | None") -> "_Rows":
        if before is None:
            return self
        pairs = zip(before.columns, self.columns, strict=True)
        return _Rows(tuple(np.concatenate(pair) for pair in pairs))


def cut(
    path: Path,
    city: City,
    *,
    incarnation: str = "recording",
    start_ms: int | None = None,
    end_ms: int | None = None,
    close: bool = True,
) -> Iterator[Batch | Heartbeat]:
    """The readings log of a recording, by the rule at the top; memory stays bounded.

    start_ms, end_ms: only readings of [start, end); what lies far from them is not looked at.
    close: say the last heartbeats too.
    `sent_ms` is the end of the step (for the last heartbeats: their watermark).

    Raises InvalidInput naming the row (from 0) and field: `format`, `columns`, `order`,
    `sensor`, `kind`, `value`, `quality`, `repeat`.
    """
    layout = Layout(city)
    step = min(kind.pane_ms for kind in city.kinds.values())
    log = _Log(layout, step, incarnation, city.generated)
    rest: _Rows | None = None
    for rows in _chunks(path, layout, start_ms, end_ms):
        rows = rows.after(rest)
        time = rows.columns[2]
        whole = int(np.searchsorted(time, time[-1] // step * step))
        rest = rows.take(slice(whole, None))
        yield from log.steps(rows.take(slice(whole)))
    if rest is not None:
        yield from log.steps(rest)
    if close and log.watermark is not None:
        longest = max(kind.windows_ms[-1] for kind in city.kinds.values())
        delay = max(kind.delay_ms for kind in city.kinds.values())
        end = -(-log.watermark // longest) * longest + delay
        yield from (log.heartbeat(pair, end) for pair in layout.pairs)


class _Log:
    """Cuts whole steps; keeps sequence numbers and the watermark between calls."""

    def __init__(self, layout: Layout, step: int, incarnation: str, generated: bool) -> None:
        self.layout = layout
        self.step = step
        self.incarnation = incarnation
        self.generated = generated
        self.watermark: int | None = None
        self.seq = dict.fromkeys(layout.pairs, 0)

    def heartbeat(self, pair: tuple[str, str], watermark: int) -> Heartbeat:
        return Heartbeat(
            gateway=pair[1], incarnation=self.incarnation, shard=pair[0],
            watermark_ms=watermark, sent_ms=watermark,
        )  # fmt: skip

    def steps(self, rows: _Rows) -> Iterator[Batch | Heartbeat]:
        group, position, time, _, _ = rows.columns
        if not len(time):
            return
        steps = time // self.step
        order = np.lexsort((position, time, group, steps))
        rows, steps = rows.take(order), steps[order]
        group, position, time, _, _ = rows.columns
        again = np.flatnonzero(
            (group[1:] == group[:-1]) & (position[1:] == position[:-1]) & (time[1:] == time[:-1])
        )
        if len(again):
            one = self.layout.groups[group[again[0]]]
            name = one.roster.names[position[again[0]]]
            raise InvalidInput(
                "repeat", f"time: {name} has two readings of {one.kind} at {time[again[0]]}"
            )
        edges = np.flatnonzero((group[1:] != group[:-1]) | (steps[1:] != steps[:-1])) + 1
        starts = [0, *edges.tolist()]
        ends = [*starts[1:], len(time)]
        said: dict[tuple[str, str], list[slice]] = {}
        for i, (start, end) in enumerate(zip(starts, ends, strict=True)):
            pair = self.layout.groups[group[start]].pair
            said.setdefault(pair, []).append(slice(start, end))
            if i + 1 == len(starts) or steps[ends[i]] != steps[start]:
                yield from self._step(int(steps[start]) * self.step, said, rows)
                said = {}

    def _step(
        self, start: int, said: dict[tuple[str, str], list[slice]], rows: _Rows
    ) -> Iterator[Batch | Heartbeat]:
        before = start if self.watermark is None else self.watermark
        if start - before > DAY:
            yield from (self.heartbeat(pair, start) for pair in self.layout.pairs)
            before = start
        while before < start:
            before += self.step
            yield from (self.heartbeat(pair, before) for pair in self.layout.pairs)
        end = self.watermark = start + self.step
        for pair in self.layout.pairs:
            slices = said.get(pair)
            if slices is None:
                yield self.heartbeat(pair, end)
                continue
            for part in slices:
                yield self._batch(pair, rows.take(part), end if part is slices[-1] else start, end)

    def _batch(self, pair: tuple[str, str], rows: _Rows, watermark: int, sent: int) -> Batch:
        group, position, time, value, quality = rows.columns
        known = self.layout.groups[group[0]]
        head = BatchHead(
            gateway=pair[1], incarnation=self.incarnation, shard=pair[0], seq=self.seq[pair],
            kind=known.kind, watermark_ms=watermark, sent_ms=sent, generated=self.generated,
        )  # fmt: skip
        self.seq[pair] += 1
        return Batch(head, known.roster, position, time, value, quality)


def _chunks(path: Path, layout: Layout, start: int | None, end: int | None) -> Iterator[_Rows]:
    file = _open(path)
    groups = _within(file, start, end)
    base, last = sum(file.metadata.row_group(i).num_rows for i in range(groups.start)), -(2**62)
    for table in _batches(path, file, SCHEMA.names, groups):
        rows, last = _checked(table, layout, base, last)
        base += table.num_rows
        time = rows.columns[2]
        first = 0 if start is None else int(np.searchsorted(time, start))
        stop = len(time) if end is None else int(np.searchsorted(time, end))
        if first < stop:
            yield rows.take(slice(first, stop))


def _checked(table: pa.RecordBatch, layout: Layout, base: int, last: int) -> tuple[_Rows, int]:
    for name in SCHEMA.names:
        if table.column(name).null_count:
            row = int(np.flatnonzero(table.column(name).is_null().to_numpy(False))[0])
            raise InvalidInput("columns", f"row {base + row}: {name}: is null")
    time = table.column("time").to_numpy()
    value = table.column("value").to_numpy()
    quality = table.column("quality").to_numpy()
    sensor = layout.sensor_places.of(table.column("sensor"))
    kind = layout.kind_places.of(table.column("kind"))
    group = layout.group[sensor, kind]

    def refuse(reason: str, wrong: npt.NDArray[np.bool_], what: str) -> None:
        if wrong.any():
            row = int(np.argmax(wrong))
            shown = {name: table.column(name)[row].as_py() for name in SCHEMA.names}
            raise InvalidInput(reason, f"row {base + row}: {what}; it is {shown}")

    # Within what a float holds exactly, so that no sum with a window's length overflows.
    refuse("time", (time < -(2**53)) | (time > 2**53), "time: is no time in milliseconds")
    steps = np.diff(time, prepend=min(last, int(time[0])) if base == 0 else last)
    refuse("order", steps < 0, "time: is before the row above")
    refuse("sensor", sensor < 0, "sensor: is not in the pack")
    refuse("kind", (kind < 0) | (group < 0), "kind: is not one of this sensor's in the pack")
    grid = layout.resolution[kind]
    refuse("value", ~np.isfinite(value), "value: is not a number")
    inside = (value >= layout.low[kind]) & (value <= layout.high[kind])
    refuse("value", ~inside, "value: is outside the kind's range")
    refuse("value", snap(value, grid) != value, "value: is not on the kind's grid")
    refuse("quality", quality > 2, "quality: is not 0, 1 or 2")
    position = layout.position[sensor, kind]
    return _Rows((group, position, time, value, quality)), int(time[-1])


def _within(file: pq.ParquetFile, start: int | None, end: int | None) -> range:
    """The row groups from the first to the last that may hold readings of [start, end)."""
    meta = file.metadata
    column = meta.schema.names.index("time")
    spans = [meta.row_group(i).column(column).statistics for i in range(meta.num_row_groups)]
    inside = [
        i for i, span in enumerate(spans)
        if span is None or not span.has_min_max
        or ((start is None or span.max >= start) and (end is None or span.min < end))
    ]  # fmt: skip
    return range(inside[0], inside[-1] + 1) if inside else range(0)


def _batches(
    path: Path, file: pq.ParquetFile, columns: list[str], groups: range | None = None
) -> Iterator[pa.RecordBatch]:
    """The rows; damage behind a good footer is found only while they are read."""
    try:
        yield from file.iter_batches(_CHUNK, row_groups=groups, columns=columns)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InvalidInput("format", f"recording {path}: {error}") from error


def _open(path: Path) -> pq.ParquetFile:
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InvalidInput("format", f"recording {path}: {error}") from error
    for field in SCHEMA:
        if field.name not in file.schema_arrow.names:
            raise InvalidInput("columns", f"recording {path}: column {field.name!r} is missing")
        found = file.schema_arrow.field(field.name).type
        if found != field.type:
            raise InvalidInput(
                "columns", f"recording {path}: {field.name}: is {found}, expected {field.type}"
            )
    # Names stay numbers of a dictionary, as they are in the file.
    return pq.ParquetFile(path, metadata=file.metadata, read_dictionary=["sensor", "kind"])


class RecordingWriter:
    """Writes a recording; use as a context manager. Values are put on their kind's grid.

    Calls of `write` must not go back in time; rows within one call may stand in any order.
    """

    def __init__(self, path: Path, city: City) -> None:
        self._city = city
        self._writer = pq.ParquetWriter(path, SCHEMA, compression="zstd")
        self._held: pa.Table = SCHEMA.empty_table()
        self._last = -(2**62)
        self.rows = 0

    def write(
        self,
        time_ms: npt.NDArray[np.int64],
        sensor: Sequence[str],
        kind: Sequence[str],
        value: npt.NDArray[np.float64],
        quality: npt.NDArray[np.uint8] | None = None,
    ) -> None:
        """Add readings. Raises InvalidInput `order` or `kind`; `cut` checks all the rest."""
        if not len(time_ms):
            return
        if int(time_ms.min()) < self._last:
            raise InvalidInput(
                "order", f"time: {int(time_ms.min())} after {self._last} was written already"
            )
        self._last = int(time_ms.max())
        unknown = set(kind) - set(self._city.kinds)
        if unknown:
            raise InvalidInput("kind", f"kind: {sorted(unknown)} not in the city")
        if quality is None:
            quality = np.zeros(len(time_ms), np.uint8)
        grid = np.array([self._city.kinds[name].resolution for name in kind])
        columns = [time_ms, sensor, kind, snap(value, grid), quality]
        arrays = [pa.array(c, type=f.type) for c, f in zip(columns, SCHEMA, strict=True)]
        table = pa.concat_tables([self._held, pa.table(arrays, schema=SCHEMA)])
        table = table.sort_by([(name, "ascending") for name in ("time", "kind", "sensor")])
        # The newest instant is held back: the next call may add to it.
        whole = int(np.searchsorted(table.column("time").to_numpy(), self._last))
        self._put(table.slice(0, whole))
        self._held = table.slice(whole)

    def _put(self, table: pa.Table) -> None:
        if not table.num_rows:
            return
        self.rows += table.num_rows
        self._writer.write_table(table, row_group_size=_CHUNK)

    def __enter__(self) -> "RecordingWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._put(self._held)
        self._held = SCHEMA.empty_table()
        self._writer.close()
