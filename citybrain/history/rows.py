"""Records of the logs as rows of history. Pure: one record in, at most a few Arrow batches out."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from citybrain import batch, findings, forecasts, stats
from citybrain.accounts import Account
from citybrain.alerts import Alert
from citybrain.columns import Roster, Rosters
from citybrain.errors import JSON_ERRORS, InvalidInput
from citybrain.history.tables import TABLES, TIME
from citybrain.kinds import KINDS
from citybrain.stage import Record

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64] | npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of one table and one kind ("" where the table has no kinds)."""

    table: str
    kind: str
    data: pa.RecordBatch


@dataclass(frozen=True, slots=True)
class Row:
    """One row; times in UTC ms. Many of them become columns at once (`together`)."""

    table: str
    kind: str
    values: dict[str, Any]


def word(text: str, n: int) -> pa.DictionaryArray:
    """The same text n times."""
    return pa.DictionaryArray.from_arrays(np.zeros(n, np.int32), pa.array([text], pa.utf8()))


def times(ms: npt.NDArray[np.int64]) -> pa.Array:
    """UTC milliseconds as timestamps."""
    return pa.array(ms, pa.int64()).cast(TIME)


def moment(ms: int, n: int) -> pa.Array:
    """The same time n times."""
    return times(np.full(n, ms, np.int64))


def build(table: str, kind: str, columns: Mapping[str, Any], n: int) -> Rows:
    """Rows from arrays; a scalar stands for a column of n equal values."""
    schema = TABLES[table].schema
    arrays = []
    for field in schema:
        column = columns[field.name]
        if isinstance(column, str):
            column = word(column, n)
        elif isinstance(column, (bool, int, float)):
            column = moment(int(column), n) if field.type == TIME else pa.repeat(column, n)
        elif isinstance(column, np.ndarray):
            column = times(column) if field.type == TIME else pa.array(column)
        arrays.append(column if column.type == field.type else column.cast(field.type))
    return Rows(table, kind, pa.RecordBatch.from_arrays(arrays, schema=schema))


def sensors(codes: npt.NDArray[np.int32], names: Iterable[str]) -> pa.DictionaryArray:
    """Sensor codes with their names."""
    return pa.DictionaryArray.from_arrays(pa.array(codes, pa.int32()), pa.array(names, pa.utf8()))


def readings(got: batch.Batch, known_ms: int) -> Rows:
    """A batch of the readings log."""
    head, n = got.head, len(got)
    columns = {
        "time": got.time_ms, "sensor": sensors(got.codes, got.roster.names), "kind": head.kind,
        "value": got.value, "quality": got.quality, "gateway": head.gateway,
        "lane": head.lane, "generated": head.generated, "known_at": known_ms,
    }  # fmt: skip
    return build("readings", head.kind, columns, n)


def window_columns(
    total: bool, seen: npt.NDArray[Any], sums: Floats, sumsq: Floats
) -> dict[str, pa.Array]:
    """value, mean and std of windows, null where nothing was seen.

    The population's variance is (sumsq - sum * sum / n) / n; sums are exact on the grid.
    """
    empty = np.asarray(seen == 0)
    n = np.where(empty, 1, seen)
    mean = sums / n
    std = np.sqrt(np.maximum(0.0, (sumsq - sums * mean) / n))
    return {
        "value": pa.array(sums if total else mean, mask=empty),
        "mean": pa.array(mean, mask=empty),
        "std": pa.array(std, mask=empty),
    }


def closed(messages: Sequence[tuple[stats.Stats, int]]) -> Rows:
    """Messages of the statistics log of one kind, each with when it was known."""
    heads = [got.head for got, _ in messages]
    kind = KINDS.get(heads[0].kind)
    many = _Many([got for got, _ in messages])
    seen = many.column("seen")
    empty = seen == 0
    sums = many.column("sum")
    expected = many.each([head.expected for head in heads])
    start = many.each([head.start_ms for head in heads])
    window = many.each([head.window_ms for head in heads])
    columns = {
        "sensor": many.sensors(), "kind": heads[0].kind,
        "window_ms": window, "step_ms": many.each([head.step_ms for head in heads]),
        "window_start": start, "window_end": start + window,
        **window_columns(kind is not None and kind.total, seen, sums, many.column("sumsq")),
        "min": pa.array(many.column("min"), mask=empty),
        "max": pa.array(many.column("max"), mask=empty),
        "last": pa.array(many.column("last"), mask=empty),
        "seen": seen, "expected": expected,
        "completeness": np.minimum(1.0, seen / np.maximum(1, expected)),
        "late": many.column("late"), "revision": many.each([head.revision for head in heads]),
        "backfill": many.each([head.backfill for head in heads]),
        "generated": many.each([head.generated for head in heads]),
        "known_at": many.each([known for _, known in messages]),
    }  # fmt: skip
    return build("stats", heads[0].kind, columns, len(seen))


def forecast(messages: Sequence[tuple[forecasts.Forecast, int]]) -> Rows:
    """Messages of the forecasts log of one kind, each with when it was known."""
    heads = [got.head for got, _ in messages]
    many = _Many([got for got, _ in messages])
    columns = {
        "issued_at": many.each([head.issued_ms for head in heads]),
        "target": many.each([head.target_ms for head in heads]),
        "horizon": many.each([head.horizon_ms for head in heads]),
        "window_ms": many.each([head.window_ms for head in heads]),
        "sensor": many.sensors(), "kind": heads[0].kind, "value": many.column("value"),
        "lower": many.column("lower"), "upper": many.column("upper"),
        "coverage": many.each([head.coverage for head in heads]),
        "model": many.words([head.model for head in heads]),
        "generated": many.each([head.generated for head in heads]),
        "known_at": many.each([known for _, known in messages]),
    }  # fmt: skip
    return build("forecasts", heads[0].kind, columns, many.rows)


class _Many:
    """Columnar messages one behind the other, as one set of columns."""

    def __init__(self, messages: Sequence[stats.Stats] | Sequence[forecasts.Forecast]) -> None:
        self._messages = messages
        self._counts = np.array([len(got.codes) for got in messages])
        self.rows = int(self._counts.sum())

    def column(self, name: str) -> npt.NDArray[Any]:
        return np.concatenate([getattr(got, name) for got in self._messages])

    def each(self, values: Sequence[Any]) -> npt.NDArray[Any]:
        """One value a message, repeated over its rows."""
        return np.repeat(np.array(values), self._counts)

    def words(self, texts: Sequence[str]) -> pa.DictionaryArray:
        known = {text: i for i, text in enumerate(dict.fromkeys(texts))}
        codes = self.each([known[text] for text in texts]).astype(np.int32)
        return sensors(codes, list(known))

    def sensors(self) -> pa.DictionaryArray:
        """Codes of all messages in one dictionary, each roster once."""
        place: dict[str, int] = {}
        of: dict[Roster, npt.NDArray[np.int32]] = {}
        codes = []
        for got in self._messages:
            table = of.get(got.roster)
            if table is None:
                numbers = [place.setdefault(name, len(place)) for name in got.roster.names]
                table = of[got.roster] = np.array(numbers, np.int32)
            codes.append(table[got.codes])
        return sensors(np.concatenate(codes), list(place))


def together(table: str, rows: Sequence[Row]) -> pa.RecordBatch:
    """Single rows of one table as one batch; fields that are no column are left out."""
    schema = TABLES[table].schema
    arrays = []
    for field in schema:
        values = [row.values[field.name] for row in rows]
        if field.type == TIME:
            array = pa.array(values, pa.int64()).cast(TIME)
        elif pa.types.is_dictionary(field.type):
            array = pa.array(values, pa.utf8()).dictionary_encode()
        else:
            array = pa.array(values, field.type)
        arrays.append(array)
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _facts(record: msgspec.Struct) -> dict[str, Any]:
    return {name: getattr(record, name) for name in record.__struct_fields__}


def _place(place: findings.Place) -> dict[str, Any]:
    return _facts(place)


def finding(got: findings.Finding, known_ms: int) -> Row:
    """A finding; `evidence` and `params` as JSON."""
    row = _facts(got) | _place(got.place) | {
        "onset": got.onset_ms, "at_time": got.at_ms, "known_at": known_ms,
        "evidence": _json(got.evidence), "params": _json(got.params),
    }  # fmt: skip
    return Row("findings", got.kind, row)


def alert(got: Alert, known_ms: int) -> Row:
    """One change of an alert."""
    row = _facts(got) | _place(got.place) | {
        "opened_at": got.opened_ms, "updated_at": got.updated_ms, "cleared_at": got.cleared_ms,
        "shelved_until": got.shelved_until_ms or None, "params": _json(got.params),
        "findings": _json(got.findings), "known_at": known_ms,
    }  # fmt: skip
    return Row("alerts", "", row)


def _command(got: findings.Command, known_ms: int) -> Row:
    row = {
        "id": got.id, "type": got.__struct_config__.tag, "person": got.person,
        "issued_at": got.issued_ms, "expires_at": got.expires_ms,
        "alert": getattr(got, "alert", ""), "rule": getattr(got, "rule", ""),
        "sensor": getattr(got, "sensor", ""),
        "detail": _json(got), "known_at": known_ms,
    }  # fmt: skip
    return Row("commands", "", row)


def _change(got: stats.Effective | stats.Rules, known_ms: int) -> Row:
    model = isinstance(got, stats.Effective)
    detail = {name: value for name, value in _facts(got).items() if name != "body"}
    row = {
        "type": "model" if model else "rules", "shard": got.shard, "detail": _json(detail),
        "kind": getattr(got, "kind", ""), "role": getattr(got, "role", ""),
        "digest": getattr(got, "digest", ""), "pack": getattr(got, "pack", ""),
        "effective_from": getattr(got, "from_ms", None), "known_at": known_ms,
    }  # fmt: skip
    return Row("changes", "", row)


def _from_stats(record: Record, rosters: Rosters) -> Rows | Row | None:
    got = stats.decode(record.value, rosters)
    if isinstance(got, stats.Stats):
        return closed([(got, record.timestamp_ms)])
    if isinstance(got, stats.Passed):
        return None
    return _change(got, record.timestamp_ms)


def _from_findings(record: Record, rosters: Rosters) -> Row | None:
    got = findings.decode(record.value)
    if isinstance(got, findings.Progress | findings.LeaveOutShard):
        return None
    if isinstance(got, findings.Finding):
        return finding(got, record.timestamp_ms)
    return _command(got, record.timestamp_ms)


def _plain(form: type[msgspec.Struct]) -> Callable[[Record], Any]:
    decoder = msgspec.json.Decoder(form)

    def decode(record: Record) -> Any:
        try:
            return decoder.decode(record.value)
        except JSON_ERRORS as error:
            raise InvalidInput("head", f"{record.topic}: {error}") from error

    return decode


_alert = _plain(Alert)
_link_state = _plain(findings.LinkState)
_result = _plain(findings.CommandResult)
_dead = _plain(findings.DeadLetter)
_account = _plain(Account)


def _from_link_states(record: Record, _: Rosters) -> Row:
    got = _link_state(record)
    row = _facts(got) | {
        "at_time": got.at_ms, "expires_at": got.expires_ms, "known_at": record.timestamp_ms
    }  # fmt: skip
    return Row("link_states", "", row)


def _from_results(record: Record, _: Rosters) -> Row:
    got = _result(record)
    row = _facts(got) | {"at_time": got.at_ms, "known_at": record.timestamp_ms}
    return Row("command_results", "", row)


def _from_dead(record: Record, _: Rosters) -> Row:
    got = _dead(record)
    return Row(
        "dead_letters", "", _facts(got) | {"at_time": got.at_ms, "known_at": record.timestamp_ms}
    )


def _from_accounts(record: Record, _: Rosters) -> Row:
    got = _account(record)
    row = _facts(got) | {
        "at_time": got.at_ms, "counts": _json(got.counts), "known_at": record.timestamp_ms
    }  # fmt: skip
    return Row("accounts", "", row)


DECODERS: dict[str, Callable[[Record, Rosters], Rows | Row | None]] = {
    "stats": _from_stats,
    "findings": _from_findings,
    "forecasts": lambda record, rosters: forecast(
        [(forecasts.decode(record.value, rosters), record.timestamp_ms)]
    ),
    "alerts": lambda record, _: alert(_alert(record), record.timestamp_ms),
    "link-states": _from_link_states,
    "command-results": _from_results,
    "dead-letter": _from_dead,
    "accounts": _from_accounts,
}
"""Topic -> rows. `readings` is not here: its repeats are refused first (`intake.py`)."""


def decode(record: Record, rosters: Rosters) -> Rows | Row | None:
    """The rows of a record, None for one that is not history (progress, a tombstone).

    Raises InvalidInput as the record's own decoder.
    """
    if not record.value:
        return None
    return DECODERS[record.topic](record, rosters)
