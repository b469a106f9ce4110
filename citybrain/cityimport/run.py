"""Importing a city: tables in, `pack/` and `recording.parquet` out, and an account of it all."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from citybrain import pack
from citybrain.cityimport import mapping as mappings
from citybrain.cityimport.packwriter import write_pack
from citybrain.cityimport.places import Places, places
from citybrain.cityimport.tables import Counts, Series, Source, series
from citybrain.errors import PackError
from citybrain.recording import SCHEMA

_ROW_GROUP = 1 << 18


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import has made. tables: file -> what became of its values."""

    city: str
    pack: Path
    recording: Path
    readings: int
    sensors: int
    kinds: dict[str, int]
    first_ms: int
    last_ms: int
    tables: dict[str, Counts]

    def as_json(self) -> dict[str, Any]:
        """Plain data for --json."""
        facts = asdict(self) | {"pack": str(self.pack), "recording": str(self.recording)}
        for counts in facts["tables"].values():
            counts["unknown_kinds"] = sorted(counts["unknown_kinds"])
        return facts


def run(path: Path, out: Path, base: Path | None = None) -> Imported:
    """Import what a mapping file describes. The same tables give the same bytes.

    base: folder of the data; None = as the mapping says. Raises PackError.
    """
    mapping = mappings.load(path)
    source = Source(base or (path.parent / mapping.base).resolve())
    zone = mappings.zone(f"{path}: city.time_zone", mapping.city.time_zone)
    counts: dict[str, Counts] = {}
    found: list[Series] = []
    for number, table in enumerate(mapping.tables):
        mine = counts.setdefault(table.file, Counts())
        found += [s for s in series(source, number, table, zone, mine) if len(s.codes)]
    if not found:
        raise PackError(f"{path}: no usable reading in {sorted(counts)}: {counts}")
    rows, lost = _merged(found)
    for (number, fate), n in lost.items():
        mine = counts[mapping.tables[number].file]
        setattr(mine, fate, getattr(mine, fate) + n)
    for mine in counts.values():
        mine.kept = mine.read - (
            mine.empty + mine.filtered + mine.bad_time + mine.missing_time + mine.unknown_kind
            + mine.out_of_range + mine.duplicate + mine.conflict
        )  # fmt: skip
    where: Places = places(source, mapping, _gateways(found))
    out.mkdir(parents=True, exist_ok=True)
    write_pack(out / "pack", mapping, where, _kinds_of(rows))
    pack.load(str(out / "pack"))
    recording = out / "recording.parquet"
    new = recording.with_suffix(".new")
    pq.write_table(rows, new, compression="zstd", row_group_size=_ROW_GROUP)
    new.replace(recording)
    kinds = pc.value_counts(rows.column("kind"))
    time = rows.column("time").to_numpy()
    return Imported(
        mapping.city.id, out / "pack", recording, rows.num_rows, len(where.sensors),
        {row["values"]: row["counts"] for row in kinds.to_pylist()},
        int(time[0]), int(time[-1]), counts,
    )  # fmt: skip


def _merged(found: list[Series]) -> tuple[pa.Table, dict[tuple[int, str], int]]:
    """All readings in the order (time, kind, sensor), each once: of several for the same
    (sensor, kind, time) the first in the order of the tables counts."""
    names = sorted({name for s in found for name in s.names.to_pylist()})
    kinds = sorted({s.kind for s in found})
    place = {name: i for i, name in enumerate(names)}
    sensor = np.concatenate(
        [np.array([place[n] for n in s.names.to_pylist()], np.int32)[s.codes] for s in found]
    )
    kind = np.concatenate([np.full(len(s.codes), kinds.index(s.kind), np.int32) for s in found])
    time = np.concatenate([s.time_ms for s in found])
    value = np.concatenate([s.value for s in found])
    table = np.concatenate([np.full(len(s.codes), s.table, np.int32) for s in found])
    order = np.lexsort((sensor, kind, time))
    sensor, kind, time, value, table = (c[order] for c in (sensor, kind, time, value, table))
    again = np.zeros(len(time), bool)
    again[1:] = (sensor[1:] == sensor[:-1]) & (kind[1:] == kind[:-1]) & (time[1:] == time[:-1])
    # The value that counts is the first of its run of equal (time, kind, sensor).
    first = np.maximum.accumulate(np.where(again, 0, np.arange(len(time))))
    same = value == value[first]
    lost: dict[tuple[int, str], int] = {}
    for fate, rows in (("duplicate", again & same), ("conflict", again & ~same)):
        for number, n in zip(*np.unique(table[rows], return_counts=True), strict=True):
            lost[int(number), fate] = int(n)
    keep = ~again
    words = [
        pa.DictionaryArray.from_arrays(codes[keep], pa.array(texts, pa.utf8())).cast(pa.utf8())
        for codes, texts in ((sensor, names), (kind, kinds))
    ]
    columns = [
        pa.array(time[keep]), *words, pa.array(value[keep]),
        pa.array(np.zeros(int(keep.sum()), np.uint8)),
    ]  # fmt: skip
    return pa.Table.from_arrays(columns, schema=SCHEMA), lost


def _gateways(found: list[Series]) -> dict[str, str]:
    """Sensor -> gateway, as the first table that has the sensor says."""
    gateways: dict[str, str] = {}
    for s in found:
        for code in np.unique(s.codes).tolist():
            gateways.setdefault(s.names[code].as_py(), s.gateway)
    return gateways


def _kinds_of(rows: pa.Table) -> dict[str, list[str]]:
    pairs = rows.select(["sensor", "kind"]).group_by(["sensor", "kind"]).aggregate([])
    kinds: dict[str, list[str]] = {}
    for sensor, kind in sorted(
        zip(*(pairs.column(name).to_pylist() for name in ("sensor", "kind")), strict=True)
    ):
        kinds.setdefault(sensor, []).append(kind)
    return kinds
