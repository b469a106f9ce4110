"""Fitting along a statistics log, as a replay does it: by the rules of `models.schedule`, from
what the log itself has said so far."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from citybrain.city import City
from citybrain.columns import Roster
from citybrain.models import fitting
from citybrain.models.block import Array
from citybrain.models.daytime import Daytime
from citybrain.models.schedule import Day, day_of
from citybrain.models.seen import window_value
from citybrain.stats import Effective, Stats


class Refits:
    """Collects the analysed windows (revision 0) of every kind and shard.

    `take` returns the records of a new model when the first window after a midnight comes;
    they belong into the log right behind that window.
    """

    def __init__(self, city: City) -> None:
        self._city = city
        self._daytime = Daytime(city.zone_info, city.calendar)
        self._rows: dict[tuple[str, str], list[tuple[int, Array]]] = defaultdict(list)
        self._day: dict[tuple[str, str], Day] = {}
        self._names: dict[tuple[str, str], tuple[str, ...]] = {}
        self._places: dict[tuple[Roster, tuple[str, ...]], Array] = {}

    def take(self, message: Stats) -> Sequence[Effective]:
        """A closed window; others than revision 0 of the analysed length are passed over."""
        head = message.head
        kind = self._city.kinds.get(head.kind)
        if kind is None or head.window_ms != kind.analysed_ms or head.revision or head.backfill:
            return ()
        key = (head.shard, head.kind)
        models = self._due(key, head.start_ms)
        names = self._names.setdefault(key, self._city.roster(*key))
        index = self._place(message.roster, names)[message.codes]
        known = index >= 0
        value = np.full(len(names), np.nan)
        seen = window_value(kind, message.seen, message.sum, head.expected)
        value[index[known]] = seen[known]
        self._rows[key].append((head.start_ms, value))
        return models

    def _place(self, roster: Roster, names: tuple[str, ...]) -> Array:
        """Index into `names` of each name of the roster, -1 for none."""
        key = (roster, names)
        if key not in self._places:
            if len(self._places) >= 256:
                self._places.pop(next(iter(self._places)))
            position = {name: i for i, name in enumerate(names)}
            self._places[key] = np.array(
                [position.get(name, -1) for name in roster.names], dtype=np.int64
            )
        return self._places[key]

    def _due(self, key: tuple[str, str], start_ms: int) -> Sequence[Effective]:
        before = self._day.get(key)
        day = self._day[key] = day_of(start_ms, before, self._daytime)
        if before is None or day is before:
            return ()
        midnight = day.midnight_ms
        shard, name = key
        kind = self._city.kinds[name]
        oldest = midnight - fitting.horizon_of_history_ms(kind.analysed_ms)
        rows = self._rows[key] = [row for row in self._rows[key] if row[0] >= oldest]
        n = len(self._names[key])
        history = fitting.rows(
            kind,
            self._names[key],
            np.tile(np.arange(n), len(rows)),
            np.repeat(np.array([start for start, _ in rows], dtype=np.int64), n),
            np.concatenate([value for _, value in rows]) if rows else np.zeros(0),
            midnight,
        )
        parts = fitting.fit(history, self._city, kind, midnight)
        since = day.effective_ms(kind.analysed_ms)
        return fitting.effective(shard, name, parts, since) if parts else ()
