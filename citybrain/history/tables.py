"""The tables of history: their columns, in one place (docs/history.md is written from it).

Times are Arrow timestamps in milliseconds UTC. `known_at` is the broker's receipt time of
the record that brought a row: what was known at T are the rows with `known_at <= T`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa

from citybrain.kinds import DAY

TIME = pa.timestamp("ms", tz="UTC")
WORD = pa.dictionary(pa.int32(), pa.utf8())
"""Text of few distinct values (sensors, kinds): stored and read as plain text."""

_TYPES: Mapping[str, pa.DataType] = {
    "time": TIME,
    "word": WORD,
    "text": pa.utf8(),
    "json": pa.utf8(),
    "float": pa.float64(),
    "int": pa.int64(),
    "small": pa.int32(),
    "quality": pa.uint8(),
    "flag": pa.bool_(),
    "bytes": pa.binary(),
}


@dataclass(frozen=True, slots=True)
class Table:
    """One table. columns: name -> (type word, meaning). day: the time column whose UTC day
    is the folder. order: how rows are sorted when files are merged. keep_ms: retention."""

    name: str
    text: str
    columns: Mapping[str, tuple[str, str]]
    day: str
    order: tuple[str, ...]
    keep_ms: int

    @property
    def schema(self) -> pa.Schema:
        """The Arrow schema of its files."""
        return pa.schema([(name, _TYPES[word]) for name, (word, _) in self.columns.items()])


_KNOWN = {"known_at": ("time", "broker's receipt time of the record that brought the row")}
_GENERATED = {"generated": ("flag", "from a simulated world, not measured")}
_PLACE = {
    "zone": ("word", "zone of the city"),
    "link": ("word", "road link, empty if none"),
    "sensor": ("word", "sensor, empty if the place is not one sensor"),
    "lon": ("float", "WGS-84 degrees, null if unknown"),
    "lat": ("float", "WGS-84 degrees, null if unknown"),
}


def _table(
    name: str, text: str, day: str, order: str, days: int, columns: Mapping[str, tuple[str, str]]
) -> Table:
    return Table(name, text, {**columns, **_KNOWN}, day, tuple(order.split()), days * DAY)


_ALL = (
    _table("readings", "raw readings as they entered the readings log, repeats refused",
           "time", "sensor time", 30, {
        "time": ("time", "event time"),
        "sensor": ("word", "sensor"),
        "kind": ("word", "kind of reading"),
        "value": ("float", "in the kind's unit, on its grid"),
        "quality": ("quality", "0 good, 1 suspect, 2 bad, as the device states"),
        "gateway": ("word", "gateway that sent it"),
        "lane": ("word", "live, or backfill for what was sent long afterwards"),
        **_GENERATED,
    }),
    _table("stats", "closed windows, every revision", "window_start", "sensor window_start", 400, {
        "sensor": ("word", "sensor"),
        "kind": ("word", "kind of reading"),
        "window_ms": ("int", "length of the window"),
        "step_ms": ("int", "distance of window starts; below window_ms for rolling windows"),
        "window_start": ("time", "first moment of the window"),
        "window_end": ("time", "first moment after it"),
        "value": ("float", "sum for kinds that count, else mean; null where seen = 0"),
        "mean": ("float", "mean of the readings, null where seen = 0"),
        "std": ("float", "standard deviation of the readings (population)"),
        "min": ("float", "smallest reading"),
        "max": ("float", "largest reading"),
        "last": ("float", "last reading by event time"),
        "seen": ("small", "readings counted"),
        "expected": ("small", "readings that a well sensor sends in such a window"),
        "completeness": ("float", "seen / expected, at most 1"),
        "late": ("small", "of seen, those that came after revision 0"),
        "revision": ("small", "0 when the window closed, higher after late readings"),
        "backfill": ("flag", "recomputed in bulk from readings that came too late"),
        **_GENERATED,
    }),
    _table("findings", "what detectors said", "at_time", "at_time id", 400, {
        "id": ("text", "rule/kind/sensor or link/onset"),
        "detector": ("word", "detector"),
        "rule": ("word", "rule of the pack for which it ran"),
        "state": ("word", "raised, updated or cleared"),
        "kind": ("word", "kind of reading"),
        **_PLACE,
        "onset": ("time", "start of the first window that supports it"),
        "at_time": ("time", "end of the window that decided it"),
        "score": ("float", "in the detector's own scale"),
        "threshold": ("float", "score at which it raises"),
        "observed": ("float", "in unit"),
        "expected": ("float", "in unit"),
        "unit": ("word", "UCUM code"),
        "evidence": ("json", "windows that support it"),
        "params": ("json", "further facts"),
        "model": ("word", "model that was used"),
        "pack": ("word", "version of the city pack"),
        **_GENERATED,
    }),
    _table("forecasts", "what models expected", "target", "sensor target issued_at", 100, {
        "issued_at": ("time", "end of the last window that the model saw"),
        "target": ("time", "start of the window that is forecast"),
        "horizon": ("int", "milliseconds from issued_at to target"),
        "window_ms": ("int", "length of the window that is forecast"),
        "sensor": ("word", "sensor"),
        "kind": ("word", "kind of reading"),
        "value": ("float", "expected, in the kind's unit"),
        "lower": ("float", "lower end of the interval"),
        "upper": ("float", "upper end of the interval"),
        "coverage": ("float", "share of truths that the interval is to contain"),
        "model": ("word", "name and content hash"),
        **_GENERATED,
    }),
    _table("alerts", "every change of every alert", "updated_at", "updated_at id revision", 3650, {
        "id": ("text", "rule/place/occurrence"),
        "revision": ("small", "number of the change, from 0"),
        "transition": ("word", "what changed"),
        "rule": ("word", "rule of the pack"),
        "cause": ("word", "hazard class"),
        **_PLACE,
        "severity": ("small", "1 red, 2 orange, 3 yellow, 4 blue"),
        "active": ("flag", "not cleared"),
        "acknowledged": ("flag", "somebody has seen it"),
        "opened_at": ("time", "event time of the first finding"),
        "updated_at": ("time", "event time of this change"),
        "cleared_at": ("time", "event time of its end, null while active"),
        "acknowledged_by": ("text", "person"),
        "comment": ("text", "what that person said"),
        "assignee": ("text", "person who deals with it"),
        "shelved_until": ("time", "null if not shelved"),
        "shelved_reason": ("text", "why it is shelved"),
        "suppressed_by": ("text", "alert whose consequence this one is"),
        "detector": ("word", "detector"),
        "kind": ("word", "kind of reading"),
        "observed": ("float", "in unit"),
        "expected": ("float", "in unit"),
        "unit": ("word", "UCUM code"),
        "params": ("json", "further facts"),
        "findings": ("json", "ids of findings, newest last, capped"),
        "finding_count": ("small", "findings in all"),
        "advice": ("word", "key of what to do about it"),
        "pack": ("word", "version of the city pack"),
        "person": ("text", "who caused this change, empty for the engine"),
        **_GENERATED,
    }),
    _table("link_states", "how roads flowed", "at_time", "link at_time", 400, {
        "link": ("word", "road link"),
        "state": ("word", "smooth, slow, jam, heavy-jam or unknown"),
        "at_time": ("time", "event time"),
        "expires_at": ("time", "unknown from then on"),
        "speed_kmh": ("float", "null if unknown"),
        "ratio": ("float", "speed over free speed"),
        "occupancy": ("float", "percent"),
        **_GENERATED,
    }),
    _table("commands", "what people asked for", "issued_at", "issued_at id", 3650, {
        "id": ("text", "id of the command"),
        "type": ("word", "acknowledge, assign, shelve, set-threshold, ..."),
        "person": ("text", "who"),
        "issued_at": ("time", "wall clock"),
        "expires_at": ("time", "not to be carried out later"),
        "alert": ("text", "alert that it is about, if any"),
        "rule": ("word", "rule that it is about, if any"),
        "sensor": ("word", "sensor that it is about, if any"),
        "detail": ("json", "the whole command"),
    }),
    _table("command_results", "what became of commands", "known_at", "known_at id", 3650, {
        "id": ("text", "id of the command"),
        "outcome": ("word", "applied, refused or expired"),
        "why": ("text", "why it was refused"),
        "at_time": ("time", "event time of the alerting stage"),
    }),
    _table("changes", "models and rules that took effect", "known_at", "known_at shard", 3650, {
        "type": ("word", "model or rules"),
        "shard": ("word", "shard in whose log it stands"),
        "kind": ("word", "kind of reading, for models"),
        "role": ("word", "what the model is for"),
        "digest": ("word", "content hash of the model, empty for a demotion"),
        "effective_from": ("time", "first window it applies to, null for rules"),
        "pack": ("word", "version of the pack, for rules"),
        "detail": ("json", "the whole record"),
    }),
    _table("dead_letters", "refused input", "at_time", "at_time id", 100, {
        "id": ("text", "id"),
        "step": ("word", "step that refused it"),
        "reason": ("word", "short stable word"),
        "message": ("text", "what was wrong"),
        "at_time": ("time", "wall clock"),
        "original": ("bytes", "the original bytes"),
        "readings": ("int", "readings in it, null if unknown"),
        "gateway": ("word", "gateway, if known"),
        "sensor": ("word", "sensor, if known"),
        "retry_topic": ("word", "where a retry goes"),
        "retry_partition": ("small", "where a retry goes"),
    }),
    _table("accounts", "totals of who counted what", "at_time", "party shard at_time", 100, {
        "party": ("word", "edge/<gateway>/<incarnation> or a stage"),
        "shard": ("word", "shard"),
        "at_time": ("time", "when it was counted"),
        "counts": ("json", "totals since the party's beginning, by fate"),
    }),
)  # fmt: skip

TABLES: dict[str, Table] = {table.name: table for table in _ALL}
