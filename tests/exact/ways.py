"""Every way into the engine, by its pure entry point, fed with wrong things.

Each way takes a random source and returns how many readings (or messages) went in; it checks
that as many came out, good or refused, and that each refusal names a field. Nothing may raise
but a `CityBrainError`.
"""

import json
import random
import re
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from citybrain import batch as readings
from citybrain import findings, pack, recording, settings, stats
from citybrain.batch import Batch
from citybrain.columns import Rosters
from citybrain.edge import config, forms
from citybrain.edge.journal import Ledger
from citybrain.edge.merge import Merger, Request
from citybrain.edge.validate import Candidates, Tolerance, Validator
from citybrain.errors import CityBrainError, InvalidInput
from citybrain.findings import DeadLetter
from citybrain.stage import Record, Stage
from citybrain.streams.alerting import Alerting
from citybrain.streams.analyse import Analyse
from citybrain.streams.rollup import Rollup
from tests.exact import mutate
from tests.packs import write_pack
from tests.simulated import chain
from tests.simulated.cases import T0, case

NOW = T0 + 60_000
CITY = chain.CITY
NAMED = re.compile(
    r"^(body|reading|sensor|kind|time|value|unit|quality|gateway)\b|\$\.\w+|field `|: is not UTF-8"
)
"""A refusal names a field at its beginning, or as msgspec does."""
READING = {"sensor": "d1", "kind": "vehicle_count", "time": NOW, "value": 7,
           "unit": "{vehicles}", "quality": 0}  # fmt: skip


@cache
def _validator() -> Validator:
    return Validator(CITY, Tolerance())


def _door(body: bytes, form: str) -> int:
    """What the HTTP and MQTT sources do with a body."""
    validator = _validator()
    merger = Merger(validator, Ledger(), 5_000)
    try:
        rows = forms.parse(body, form, validator.layout)
    except InvalidInput as error:
        refusal = error
    else:
        return _rows(merger, rows)
    assert NAMED.search(str(refusal)), str(refusal)
    (letter,) = merger.refused("v-north", refusal.reason, str(refusal), body, NOW).messages
    assert letter.value
    return 1


def _rows(merger: Merger, rows: Candidates) -> int:
    merged = merger.merge([Request("v-north", rows, "live", NOW)], NOW)
    (outcome,) = merged.outcomes
    assert outcome.accepted + outcome.duplicate + outcome.refused == len(rows)
    letters = [
        msgspec.json.decode(m.value, type=DeadLetter)
        for m in merged.messages
        if m.topic == "dead-letter"
    ]
    assert sum(letter.readings or 0 for letter in letters) == outcome.refused
    for letter in letters:
        assert NAMED.search(letter.message), letter.message
        assert letter.original
    return len(rows)


def edge_json(rng: random.Random) -> int:
    many = [dict(READING, value=i) for i in range(rng.randint(1, 3))]
    return _door(mutate.text(rng, rng.choice((READING, many))), forms.JSON)


def edge_lines(rng: random.Random) -> int:
    lines = [mutate.text(rng, READING) for _ in range(rng.randint(1, 3))]
    return _door(rng.choice((b"\n", b"\r\n", b"")).join(lines), forms.NDJSON)


@cache
def _edge_arrow() -> bytes:
    table = pa.table(
        {"sensor": ["d1", "d2"], "kind": ["vehicle_count"] * 2, "time": [NOW, NOW + 1],
         "value": [1.0, 2.0], "unit": ["", ""], "quality": [0, 0]}
    )  # fmt: skip
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def edge_arrow(rng: random.Random) -> int:
    return _door(mutate.arrow(rng, _edge_arrow()), forms.ARROW)


class _Fed:
    """A stage and how often it was fed; a new one after a while, as state would only grow."""

    def __init__(self, make: Callable[[], Stage], topic: str) -> None:
        self.make, self.topic = make, topic
        self.stage, self.offset = make(), 0

    def feed(self, value: bytes, headers: tuple[tuple[str, bytes], ...] = ()) -> list[DeadLetter]:
        """Dead letters that a record leads to; all of the outputs can be read."""
        if self.offset >= 200:
            self.stage, self.offset = self.make(), 0
        record = Record(self.topic, 0, self.offset, NOW + self.offset, value, None, headers)
        self.offset += 1
        outs = self.stage.apply(record)
        self.stage.tick(NOW)
        return [
            msgspec.json.decode(o.value, type=DeadLetter)
            for o in outs
            if o.topic == "dead-letter"
        ]  # fmt: skip


@cache
def _fed(name: str) -> _Fed:
    if name == "rollup":
        return _Fed(lambda: Rollup(CITY, 0), "readings")
    if name == "analyse":
        return _Fed(lambda: Analyse(CITY, 0), "stats")
    return _Fed(lambda: Alerting(CITY), "findings")


@cache
def _log() -> list[bytes]:
    return [e.value for e in case(3, shards=2).entries if e.partition == 0]


def topic_readings(rng: random.Random) -> int:
    valid = rng.choice(_log())
    control = valid[:1] == b"{"
    if control:
        value = mutate.text(rng, json.loads(valid))
    elif valid[:4] != b"\xff\xff\xff\xff":
        value = mutate.raw(rng, valid)
    else:
        value = mutate.arrow(rng, valid)
    claimed = rng.randint(0, 9)
    try:
        entry = readings.decode(value, Rosters())
        went_in = len(entry) if isinstance(entry, Batch) else 0
    except InvalidInput:
        went_in = claimed
    fed = _fed("rollup")
    if fed.offset >= 200:
        fed.stage, fed.offset = fed.make(), 0
    before = dict(fed.stage.counts())
    for letter in fed.feed(value, (("n", str(claimed).encode()),)):
        assert letter.reason
        assert letter.message
    after = fed.stage.counts()
    fates = ("counted", "duplicate", "backfilled", "dead_lettered")
    assert sum(after[fate] - before[fate] for fate in fates) == went_in
    return max(1, went_in)


@cache
def _stats_log() -> list[bytes]:
    stage, told = Rollup(CITY, 0), []
    for offset, value in enumerate(_log()):
        record = Record("readings", 0, offset, NOW + offset, value)
        told += [out.value for out in stage.apply(record) if out.topic == "stats"]
    rules = stats.Rules(shard="north", pack="p", settings={"jam.raise_at": 5.0}, at_ms=NOW)
    model = stats.Effective(shard="north", kind="vehicle_count", role="fit", digest="d",
                            from_ms=NOW, at_ms=NOW, body=b"nothing")  # fmt: skip
    return [*told, stats.encode_control(rules), stats.encode_control(model)]


def topic_stats(rng: random.Random) -> int:
    valid = rng.choice(_stats_log())
    control = valid[:1] == b"{"
    value = mutate.text(rng, json.loads(valid)) if control else mutate.arrow(rng, valid)
    for letter in _fed("analyse").feed(value):
        assert letter.reason
        assert letter.original == value
    return 1


@cache
def _findings_log() -> list[bytes]:
    stage, told = Analyse(CITY, 0), []
    for offset, value in enumerate(_stats_log()[:-2]):
        record = Record("stats", 0, offset, NOW + offset, value)
        told += [out.value for out in stage.apply(record) if out.topic == "findings"]
    person = {"id": "c1", "person": "someone", "issued_ms": NOW, "expires_ms": NOW + 10**9}
    return [
        *told,
        findings.encode(findings.Acknowledge(alert="jam/d1/1", **person)),  # type: ignore[arg-type]
        findings.encode(findings.SetThreshold(rule="jam", field="raise_at", value=9.0, **person)),  # type: ignore[arg-type]
        findings.encode(findings.SetMaintenance(sensor="d1", until_ms=NOW, **person)),  # type: ignore[arg-type]
        findings.encode(findings.LeaveOutShard(shard="south", through_ms=1, at_ms=NOW)),
    ]


def topic_findings(rng: random.Random) -> int:
    value = mutate.text(rng, json.loads(rng.choice(_findings_log())))
    for letter in _fed("alerting").feed(value):
        assert letter.reason
        assert letter.original == value
    return 1


def _refused(act: Callable[[], object]) -> int:
    """It works, or says what is wrong."""
    with suppress(CityBrainError):
        act()
    return 1


@cache
def _folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="citybrain-bad-input-"))


_TOML = (b'[a]\nb = "', b"x = 1e999\n", b"= =\n", b"a.b.c = nan\n", b"[[a]]\n", b"[a]\n[a]\n")


def _toml(rng: random.Random, valid: bytes) -> bytes:
    lines = valid.splitlines(keepends=True)
    for _ in range(rng.randint(1, 2)):
        at = rng.randrange(len(lines) + 1)
        what = rng.randrange(4)
        if what == 0 and lines:
            del lines[min(at, len(lines) - 1)]
        elif what == 1:
            lines.insert(at, rng.choice(_TOML))
        elif what == 2 and lines:
            one = lines[min(at, len(lines) - 1)]
            key = one.partition(b"=")[0]
            value = rng.choice((b"1", b"-1", b'""', b"[]", b"nan", b"1e400", b"{}", b"true",
                                b"[" * 2_000, b"1979-05-27", b'"' + b"x" * 999 + b'"'))  # fmt: skip
            lines[min(at, len(lines) - 1)] = key + b"= " + value + b"\n"
        else:
            return mutate.raw(rng, b"".join(lines))
    return b"".join(lines)


SETTINGS = b'city = "adlershof"\nworkers = 2\npage_port = 0\nsecurity = "PLAINTEXT"\n'
AGENT = b"""name = "north"
gateways = ["g1"]
max_delay_s = 5.0
[spool]
max_mb = 64
overflow = "drop-oldest"
[sources.http]
port = 8040
"""


def settings_files(rng: random.Random) -> int:
    path = _folder() / "settings.toml"
    path.write_bytes(_toml(rng, SETTINGS))
    _refused(lambda: settings.resolve({}, {}, path))
    path.write_bytes(_toml(rng, AGENT))
    _refused(lambda: config.read(path))
    name = rng.choice(sorted(settings.Settings.__struct_fields__)).upper()
    said = {f"CITYBRAIN_{name}": str(rng.choice(mutate.WORDS))}
    _refused(lambda: settings.resolve({}, said))
    return 3


def packs(rng: random.Random) -> int:
    folder = _folder() / "pack"
    write_pack(folder)
    file = folder / rng.choice(("city.toml", "sensors.csv", "rules.toml", "roads.geojson",
                                "calendar.toml"))  # fmt: skip
    valid = file.read_bytes()
    if file.suffix == ".geojson":
        line = {"type": "Feature", "properties": {"id": "a", "name": "a", "zone": "north",
                "length_m": 5, "speed_kmh": 50, "lanes": 1},
                "geometry": {"type": "LineString", "coordinates": [[1, 2], [3, 4]]}}  # fmt: skip
        file.write_bytes(mutate.text(rng, {"type": "FeatureCollection", "features": [line]}))
    elif file.suffix == ".csv":
        file.write_bytes(mutate.raw(rng, valid))
    else:
        file.write_bytes(_toml(rng, valid))
    return _refused(lambda: pack.load(str(folder)))


def recordings(rng: random.Random) -> int:
    path = _folder() / "recording.parquet"
    table = pa.table(
        {"time": np.array([T0, T0 + 1]), "sensor": ["d1", "d2"], "kind": ["vehicle_count"] * 2,
         "value": [1.0, 2.0], "quality": np.zeros(2, np.uint8)}
    )  # fmt: skip
    if rng.random() < 0.6:
        place = rng.randrange(5)
        one = rng.choice(mutate.COLUMNS)
        table = (
            table.remove_column(place)
            if rng.random() < 0.3
            else table.set_column(place, table.schema.names[place], one)
        )
    sink = pa.BufferOutputStream()
    try:
        pq.write_table(table, sink)
    except pa.ArrowException:
        return 0
    said = bytes(sink.getvalue())
    path.write_bytes(mutate.raw(rng, said) if rng.random() < 0.5 else said)
    return _refused(lambda: list(recording.cut(path, CITY)))


WAYS: dict[str, tuple[Callable[[random.Random], int], float]] = {
    "HTTP and MQTT, JSON": (edge_json, 0.22),
    "HTTP and MQTT, lines": (edge_lines, 0.12),
    "HTTP and MQTT, Arrow": (edge_arrow, 0.15),
    "topic readings": (topic_readings, 0.22),
    "topic stats": (topic_stats, 0.12),
    "topic findings": (topic_findings, 0.14),
    "settings and agent files": (settings_files, 0.02),
    "packs": (packs, 0.007),
    "recordings": (recordings, 0.003),
}
"""Way -> what feeds it, and its share of all messages."""

if __name__ == "__main__":
    WAYS[sys.argv[1]][0](random.Random(f"{sys.argv[1]} {sys.argv[2]}"))
