"""What another pack, threshold or model changes: alerts of two replays, matched and compared.

An alert of A and one of B are the same case if they have the same rule and place and were
active at the same time (from the opening to the end, both inclusive; one that never ended lasts
for ever). Of several candidates the ones that opened earliest are matched first, each once.
"""

from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from citybrain.errors import UsageError

FOREVER = 1 << 62


@dataclass(frozen=True, slots=True)
class Case:
    """One alert over its whole life. severity: the worst it had (1 red to 4 blue).

    place: the alert's id without its occurrence, so `<rule>/<place>`. cleared_ms: None while
    it is active at the end of the data.
    """

    id: str
    rule: str
    place: str
    severity: int
    opened_ms: int
    cleared_ms: int | None

    @property
    def end_ms(self) -> int:
        """Its end, or for ever."""
        return FOREVER if self.cleared_ms is None else self.cleared_ms


@dataclass(frozen=True, slots=True)
class Moved:
    """The same case in both, with another opening, end or severity."""

    before: Case
    after: Case

    @property
    def what(self) -> list[str]:
        """Which of opened_ms, cleared_ms and severity differ."""
        names = ("opened_ms", "cleared_ms", "severity")
        return [n for n in names if getattr(self.before, n) != getattr(self.after, n)]


@dataclass(frozen=True, slots=True)
class Difference:
    """From A to B: cases only in B, only in A, in both but not alike, and alike."""

    gained: list[Case]
    lost: list[Case]
    moved: list[Moved]
    same: int

    def as_json(self) -> dict[str, Any]:
        """Plain data for --json."""
        return {
            "gained": [asdict(case) for case in self.gained],
            "lost": [asdict(case) for case in self.lost],
            "moved": [{**asdict(move), "what": move.what} for move in self.moved],
            "same": self.same,
        }


def read(path: Path) -> list[Case]:
    """The cases in a replay's folder or its alerts.parquet. Raises UsageError."""
    file = path / "alerts.parquet" if path.is_dir() else path
    names = ["id", "revision", "rule", "severity", "opened_at", "cleared_at"]
    try:
        rows = pq.read_table(file, columns=names)
    except (OSError, pa.ArrowException) as error:
        raise UsageError(f"{file}: not the alerts of a replay: {error}") from error
    return cases(rows)


def cases(rows: pa.Table) -> list[Case]:
    """Cases from the rows of an alerts table (every change), by opening, then id."""
    last: dict[str, tuple[int, Case]] = {}
    columns = [
        column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column
        for column in rows.columns
    ]
    worst: dict[str, int] = {}
    order = pc.sort_indices(rows, sort_keys=[("revision", "ascending")])
    for id_, revision, rule, severity, opened, cleared in zip(
        *(column.take(order).to_pylist() for column in columns), strict=True
    ):
        worst[id_] = min(severity, worst.get(id_, severity))
        case = Case(id_, rule, id_.rpartition("/")[0], worst[id_], opened, cleared)
        last[id_] = (revision, case)
    return sorted((case for _, case in last.values()), key=lambda c: (c.opened_ms, c.id))


def compare(a: list[Case], b: list[Case]) -> Difference:
    """What B has that A had not, and the other way round."""
    waiting: dict[str, list[Case]] = defaultdict(list)
    for case in b:
        waiting[case.place].append(case)
    lost, moved, same = [], [], 0
    for before in a:
        found = next(
            (
                after
                for after in waiting[before.place]
                if after.opened_ms <= before.end_ms and before.opened_ms <= after.end_ms
            ),
            None,
        )
        if found is None:
            lost.append(before)
            continue
        waiting[before.place].remove(found)
        move = Moved(before, found)
        if move.what:
            moved.append(move)
        else:
            same += 1
    gained = [case for cases_ in waiting.values() for case in cases_]
    return Difference(sorted(gained, key=lambda c: (c.opened_ms, c.id)), lost, moved, same)
