"""Real recorded data beside the project, as regular tables; None where they are not there."""

import csv
import gzip
import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from citybrain.city import Calendar
from citybrain.kinds import HOUR, KINDS, MINUTE, Kind
from citybrain.models.daytime import Daytime

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"

# Denmark, spring 2014: Maundy Thursday to Easter Monday.
_EASTER = Calendar(holidays=frozenset(date(2014, 4, day) for day in (17, 18, 21)))


@dataclass(frozen=True)
class Table:
    """value [T, n] on the grid start_ms [T]; cut: first row of the test part."""

    name: str
    kind: Kind
    daytime: Daytime
    start_ms: npt.NDArray[np.int64]
    value: npt.NDArray[np.float64]
    cut: int
    horizons_ms: tuple[int, ...]

    @property
    def step_ms(self) -> int:
        """Length of a row."""
        return self.kind.analysed_ms


def _utc(texts: Iterable[str], form: str, zone: ZoneInfo) -> npt.NDArray[np.int64]:
    cache: dict[str, int] = {}
    for text in texts:
        if text not in cache:
            moment = datetime.strptime(text, form).replace(tzinfo=zone)
            cache[text] = round(moment.timestamp() * 1000)
    return np.array([cache[text] for text in texts], dtype=np.int64)


def _grid(
    name: str, kind: Kind, zone: str, at_ms: npt.NDArray[np.int64], column: npt.NDArray[np.int64],
    value: npt.NDArray[np.float64], horizons_ms: tuple[int, ...], cut_ms: int | None = None,
    calendar: Calendar | None = None,
) -> Table:  # fmt: skip
    step = kind.analysed_ms
    place = at_ms // step
    first = int(place.min())
    table = np.full((int(place.max()) - first + 1, int(column.max()) + 1), np.nan)
    table[place - first, column] = value
    start = (np.arange(len(table), dtype=np.int64) + first) * step
    cut = int(len(table) * 0.8) if cut_ms is None else int(np.searchsorted(start, cut_ms))
    daytime = Daytime(ZoneInfo(zone), calendar or Calendar())
    return Table(name, kind, daytime, start, table, cut, horizons_ms)


def aarhus(what: str) -> Table | None:
    """Road links every five minutes: `count`, or `speed` where a vehicle passed."""
    path = DATA / "aarhus" / "traffic.parquet"
    if not path.is_file():
        return None
    rows = pq.read_table(path)
    moments = np.asarray(rows["ts"].cast("timestamp[s]")).astype("datetime64[s]")
    texts = [str(moment) for moment in moments]
    at = _utc(texts, "%Y-%m-%dT%H:%M:%S", ZoneInfo("Europe/Copenhagen"))
    sensor = rows["sensor"].combine_chunks().dictionary_encode().indices.to_numpy()
    count = rows["count"].to_numpy().astype(np.float64)
    speed = np.where(count > 0, rows["speed"].to_numpy(), np.nan)
    kind = KINDS["vehicle_count" if what == "count" else "vehicle_speed"].at_cadence(5 * MINUTE)
    horizons = (15 * MINUTE, 30 * MINUTE, HOUR)
    value = count if what == "count" else speed
    return _grid(f"Aarhus {what}", kind, "Europe/Copenhagen", at, sensor, value, horizons,
                 calendar=_EASTER)  # fmt: skip


def pems() -> Table | None:
    """One lane's flow every five minutes; its own train and test files."""
    files = [DATA / "tfp_pems" / name for name in ("train.csv", "test.csv")]
    if not all(file.is_file() for file in files):
        return None
    texts, flow, cut = [], [], 0
    for file in files:
        cut = len(texts)
        with file.open(encoding="utf-8-sig", newline="") as lines:
            for row in csv.reader(list(lines)[1:]):
                texts.append(row[0])
                flow.append(float(row[1]))
    at = _utc(texts, "%d/%m/%Y %H:%M", ZoneInfo("Etc/GMT+8"))
    kind = KINDS["vehicle_count"].at_cadence(5 * MINUTE)
    none = np.zeros(len(at), dtype=np.int64)
    return _grid("tfp_pems flow", kind, "Etc/GMT+8", at, none, np.array(flow), (5 * MINUTE,),
                 int(at[cut]))  # fmt: skip


def metro() -> Table | None:
    """Hourly volume of one road."""
    path = DATA / "metro_interstate" / "traffic_hourly.csv.gz"
    if not path.is_file():
        return None
    with gzip.open(path, "rt", encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    names = list(rows[0])
    moment = next(n for n in names if "date" in n.lower() or "time" in n.lower() or not n)
    volume = next(n for n in names if "volume" in n.lower())
    rows = [row for row in rows if row[volume]]
    at = _utc([row[moment][:19] for row in rows], "%Y-%m-%d %H:%M:%S", ZoneInfo("America/Chicago"))
    value = np.array([float(row[volume]) for row in rows])
    kind = KINDS["vehicle_count"].at_cadence(HOUR)
    none = np.zeros(len(at), dtype=np.int64)
    return _grid("Metro Interstate volume", kind, "America/Chicago", at, none, value,
                 (HOUR, 3 * HOUR, 6 * HOUR))  # fmt: skip


def beijing() -> Table | None:
    """PM2.5 of eight stations, hourly."""
    path = DATA / "beijing" / "air.parquet"
    if not path.is_file():
        return None
    rows = pq.read_table(path)
    names = {name.lower(): name for name in rows.column_names}
    station = rows[names["station"]].combine_chunks().dictionary_encode().indices.to_numpy()
    if "year" in names:
        parts = [
            rows[names[n]].to_numpy().astype(np.int64) for n in ("year", "month", "day", "hour")
        ]
        texts = [
            f"{y:04d}-{m:02d}-{d:02d}T{h:02d}:00:00" for y, m, d, h in zip(*parts, strict=True)
        ]
    else:
        column = next(n for n in rows.column_names if "time" in n.lower() or n.lower() == "ts")
        moments = np.asarray(rows[column].cast("timestamp[s]")).astype("datetime64[s]")
        texts = [str(moment) for moment in moments]
    at = _utc(texts, "%Y-%m-%dT%H:%M:%S", ZoneInfo("Asia/Shanghai"))
    value = (
        rows[names["pm2.5"] if "pm2.5" in names else names["pm25"]].to_numpy().astype(np.float64)
    )
    kind = KINDS["pm25"].at_cadence(HOUR)
    return _grid("Beijing PM2.5", kind, "Asia/Shanghai", at, station, value,
                 (HOUR, 6 * HOUR, 24 * HOUR))  # fmt: skip


def nab() -> list[tuple[Table, npt.NDArray[np.bool_], int]] | None:
    """Series of the Numenta Anomaly Benchmark (realTraffic) with the labelled rows [T] and the
    number of labelled windows."""
    folder = DATA / "nab"
    if not (folder / "windows.json").is_file():
        return None
    labels = json.loads((folder / "windows.json").read_text())
    found = []
    for path in sorted((folder / "realTraffic").glob("*.csv")):
        with path.open(newline="") as lines:
            rows = list(csv.DictReader(lines))
        at = _utc([row["timestamp"] for row in rows], "%Y-%m-%d %H:%M:%S", ZoneInfo("UTC"))
        value = np.array([float(row["value"]) for row in rows])
        name = "vehicle_count" if path.stem.startswith("volume") else "vehicle_speed"
        kind = KINDS[name].at_cadence(5 * MINUTE)
        none = np.zeros(len(at), dtype=np.int64)
        table = _grid(path.stem, kind, "UTC", at, none, value, ())
        mine = labels[f"realTraffic/{path.name}"]
        inside = np.zeros(len(table.start_ms), dtype=bool)
        for begin, end in mine:
            low, high = (
                round(datetime.fromisoformat(t).replace(tzinfo=UTC).timestamp() * 1000)
                for t in (begin, end)
            )
            inside |= (table.start_ms >= low) & (table.start_ms <= high)
        found.append((table, inside, len(mine)))
    return found
