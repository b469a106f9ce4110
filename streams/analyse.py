"""The analyse stage: windows in, findings, forecasts and link states out. One shard.

* Each window is taken once, whole, at revision 0. Later revisions, backfilled windows and repeats
  are counted and passed over: they are history's business.
* A finding's at_ms is the end of the window that decided it, or the first millisecond after
  what progress has already promised. Progress is promised when the rollup stage says that its
  watermark has `Passed` a time, which it does behind the windows that closed there. So a kind
  with long windows never holds back one with short ones.
* A model is used from the first window that starts at or after its `from_ms`. If the one of the
  last midnight is not there by then, the stage says so and goes on with what it has.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import msgspec
import numpy as np

from citybrain import emergency, findings, stats
from citybrain.city import City
from citybrain.columns import Rosters
from citybrain.emergency import LinksSeen
from citybrain.errors import InvalidInput
from citybrain.findings import DeadLetter, Progress
from citybrain.kinds import FLOW, HOUR
from citybrain.models.block import Array, pack, unpack
from citybrain.models.daytime import Daytime
from citybrain.models.outlook import Outlook
from citybrain.models.schedule import Day, day_of
from citybrain.models.seen import Seen
from citybrain.models.series import Records, Series
from citybrain.stage import Out, Record
from citybrain.stats import Effective, Passed, Rules, Stats, StatsHead
from citybrain.streams import places, wording
from citybrain.streams.parts import Parts
from citybrain.streams.watches import LINKS, Found, Names, Watches

VERSION = 1


class _Core(msgspec.Struct):
    """The small part of the state, one block. clock_ms: latest at_ms of a finding."""

    version: int = VERSION
    clock_ms: int = -1
    through_ms: int = -1
    last_ms: dict[str, int] = {}
    settings: dict[str, float | str | bool] = {}
    counts: dict[str, int] = {}
    days: dict[str, Day] = {}
    overdue: dict[str, int] = {}


class Analyse:
    """See the rules at the top. Stage of one partition; the pack says whose it is."""

    def __init__(self, city: City, partition: int) -> None:
        self._city = city
        shards = [shard for shard, own in city.shards.items() if own == partition]
        self.shard = shards[0] if shards else ""
        self._partition = partition
        self._rosters = Rosters()
        self._core = _Core()
        daytime = Daytime(city.zone_info, city.calendar)
        self._series = {
            kind.name: Series(kind, places.axis(city, city.roster(self.shard, kind.name), daytime))
            for kind in city.kinds.values()
        }
        self._outlooks = {
            name: Outlook(series.kind, series.axis.names, daytime)
            for name, series in self._series.items()
            if series.axis.names and series.kind.horizons_ms
        }
        self._links = places.links(city, self._series, daytime)
        self._watches = Watches(city, self._series, self._links)
        self._watches.adjust({})
        self._parts = Parts()
        self._dirty: set[str] = set()

    def apply(self, record: Record) -> Sequence[Out]:
        """Take a record of the stats log. A damaged one goes to the dead letter."""
        try:
            entry = record.entry
            if not isinstance(entry, Stats):
                entry = stats.decode(record.value, self._rosters)
            shard = entry.head.shard if isinstance(entry, Stats) else entry.shard
            if shard != self.shard:
                raise InvalidInput("shard", f"shard: {shard!r}, partition is of {self.shard!r}")
            return self._take(entry, record)
        except InvalidInput as error:
            self._count("dead_lettered")
            return [self._dead_letter(record, error)]

    def tick(self, now_ms: int) -> Sequence[Out]:
        """Nothing here depends on the wall clock."""
        return ()

    def counts(self) -> Mapping[str, int]:
        """Windows taken or passed over (repeats, revisions), findings, forecasts, models."""
        return dict(self._core.counts)

    def _take(self, entry: stats.Decoded, record: Record) -> list[Out]:
        match entry:
            case Stats():
                return self._message(entry, record.value)
            case Effective():
                self._model(entry)
                return []
            case Rules():
                self._core.settings |= entry.settings
                self._watches.change(self._core.settings)
                return []
            case Passed():
                return self._progress(entry.through_ms)

    def _message(self, message: Stats, value: bytes) -> list[Out]:
        head = message.head
        if head.kind not in self._series:
            raise InvalidInput("kind", f"kind: {head.kind!r} is not one of {list(self._series)}")
        if head.revision or head.backfill:
            self._count("revisions")
            return []
        key = f"{head.kind}/{head.window_ms}"
        if head.start_ms <= self._core.last_ms.get(key, -1):
            self._count("repeats")
            return []
        outs: list[Out] = []
        for window in self._parts.take(message, value):
            self._core.last_ms[key] = window.head.start_ms
            self._count("windows")
            outs += self._window(window)
        return outs

    def _window(self, message: Stats) -> list[Out]:
        head = message.head
        series = self._series[head.kind]
        analysed = head.window_ms == series.kind.analysed_ms
        said: list[Out] = []
        if analysed:
            if series.switch(head.start_ms):
                self._switched(series)
            said += self._overdue(series, head)
        seen = series.with_usual(series.lay_out(message, self._parked(series.axis.names)))
        found = list(self._watches.take(head.kind, seen))
        if head.window_ms == series.kind.pane_ms:
            said += self._flow(seen, found)
        if analysed and head.kind in self._outlooks:
            said += self._look_ahead(seen, head, series)
        return said + self._findings(found, message, seen.end_ms)

    def _look_ahead(self, seen: Seen, head: StatsHead, series: Series) -> list[Out]:
        outlook, model = self._outlooks[head.kind], series.model
        issues, changes = outlook.take(seen, model)
        if model is None:
            return []
        outs = [
            wording.forecast(issue, head, series.roster, model, self._city.generated)
            for issue in issues
            if not np.isnan(issue.lower).all()
        ]
        self._count("forecasts", len(outs))
        outs += [wording.demotion(change, head, seen.end_ms, model) for change in changes]
        if seen.end_ms % HOUR == 0 and outlook.sums.any():
            outs.append(wording.scoreboard(outlook, head, seen.end_ms, model))
        return outs

    def _overdue(self, series: Series, head: StatsHead) -> list[Out]:
        """Say once for each midnight that its model is not there when it should be."""
        core, name, model = self._core, head.kind, series.model
        day = core.days[name] = day_of(head.start_ms, core.days.get(name), series.axis.daytime)
        if model is None or model.head.until_ms >= day.midnight_ms:
            return []
        if head.start_ms < day.effective_ms(head.window_ms):
            return []
        if core.overdue.get(name) == day.midnight_ms:
            return []
        core.overdue[name] = day.midnight_ms
        self._count("models_overdue")
        return [wording.overdue(head, day.midnight_ms, model)]

    def _switched(self, series: Series) -> None:
        """A model takes effect: whoever works with it begins with what it says."""
        name, model = series.kind.name, series.model
        self._dirty.add(f"model/{name}")
        if model is None:
            return
        if name in self._outlooks:
            self._outlooks[name].adopt(model)
        self._watches.prime(name, model)

    def _flow(self, seen: Seen, found: list[Found]) -> list[Out]:
        """Link states, and the rules on them, after a window of speed or occupancy."""
        links = self._links
        if links is None or seen.kind.name not in FLOW:
            return []
        links.take(seen)
        self._dirty.add("links")
        if seen.kind.name != links.kinds[0]:
            return []
        ratios = links.ratios()
        on_links = replace(seen, value=ratios, parked=np.zeros(len(ratios), dtype=bool))
        found += self._watches.take(LINKS, on_links)
        states = [
            wording.link_state(said, seen.end_ms, links.holds_ms, self._city.generated)
            for said in links.say(seen.end_ms)
        ]
        outs = [Out("link-states", findings.encode(s), key=s.link.encode()) for s in states]
        if states and self._city.emergency.responder:
            told = emergency.encode(LinksSeen(states=states))
            outs.append(Out("emergency", told, str(self._partition).encode(), 0))
        return outs

    def _findings(self, found: list[Found], message: Stats, end_ms: int) -> list[Out]:
        at_ms = max(end_ms, self._core.through_ms + 1)
        said = [
            wording.finding(
                self._city, one.rule, one.seen, verdict, message.head, at_ms,
                self._series[one.seen.kind.name].model, self._watches.pack,
            )
            for one in found
            for verdict in one.verdicts
        ]  # fmt: skip
        if said:
            self._core.clock_ms = max(self._core.clock_ms, at_ms)
            self._count("findings", len(said))
        return [Out("findings", findings.encode(f), key=f.id.encode()) for f in said]

    def _progress(self, passed_ms: int) -> list[Out]:
        """How far this shard has come: everything up to there is said."""
        core = self._core
        through = max(passed_ms, core.clock_ms)
        if through <= core.through_ms:
            return []
        core.through_ms = through
        progress = Progress(shard=self.shard, through_ms=through)
        return [Out("findings", findings.encode(progress), key=self.shard.encode())]

    def _model(self, record: Effective) -> None:
        if record.kind not in self._series:
            raise InvalidInput("kind", f"kind: {record.kind!r} is not one of {[*self._series]}")
        if record.role != "fit":
            raise InvalidInput("role", f"role: {record.role!r} is not 'fit'")
        self._series[record.kind].offer(record)
        self._dirty.add(f"model/{record.kind}")
        self._count("models")

    def _parked(self, names: tuple[str, ...]) -> Array:
        settings = self._core.settings
        if not any(key.startswith("maintenance.") for key in settings):
            return np.zeros(len(names), dtype=bool)
        return np.array([bool(settings.get(f"maintenance.{name}")) for name in names], dtype=bool)

    def _count(self, what: str, by: int = 1) -> None:
        self._core.counts[what] = self._core.counts.get(what, 0) + by

    def _dead_letter(self, record: Record, error: InvalidInput) -> Out:
        letter = DeadLetter(
            id=f"analyse/{record.partition}/{record.offset}",
            step="analyse",
            reason=error.reason,
            message=str(error),
            at_ms=record.timestamp_ms,
            original=record.value,
            retry_topic="stats",
            retry_partition=record.partition,
        )
        return Out("dead-letter", findings.encode(letter), key=letter.id.encode())

    def changed(self) -> Mapping[str, bytes]:
        """Blocks: `core`, `links`, `model/<kind>`, `outlook/<kind>/…`, and those of the watches
        and of windows that are not whole."""
        found = {"core": msgspec.msgpack.encode(self._core)}
        for name in sorted(self._dirty):
            part, _, rest = name.partition("/")
            if part == "model":
                found[name] = msgspec.msgpack.encode(self._series[rest].records())
            elif self._links:
                found[name] = pack(Names(self._links.axis.names), self._links.state)
        self._dirty.clear()
        found |= self._watches.changed()
        found |= self._parts.changed()
        for kind, outlook in self._outlooks.items():
            for name, block in outlook.changed().items():
                found[f"outlook/{kind}/{name}"] = block
        return found

    def restore(self, blocks: Mapping[str, bytes]) -> None:
        """As in `Stage`. Blocks of rules or kinds that the pack no longer has are left."""
        if "core" in blocks:
            try:
                self._core = msgspec.msgpack.decode(blocks["core"], type=_Core)
            except msgspec.MsgspecError as error:
                raise InvalidInput("format", f"analyse state: core: {error}") from error
            _check(self._core.version)
        self._watches.adjust(self._core.settings)
        for name, value in blocks.items():
            part, _, rest = name.partition("/")
            kind, _, block = rest.partition("/")
            if part == "model" and rest in self._series:
                self._series[rest].recall(msgspec.msgpack.decode(value, type=Records))
            elif part == "watch":
                self._watches.restore(name, value)
            elif part == "part" and kind in self._series:
                self._parts.restore(name, value, self._rosters)
            elif part == "outlook" and kind in self._outlooks:
                self._outlooks[kind].restore(block, value)
            elif part == "links" and self._links:
                head, arrays = unpack(value, Names)
                _check(head.version)
                self._links.restore(arrays, head.names)


def _check(version: int) -> None:
    if version != VERSION:
        raise InvalidInput("version", f"analyse state: {version} is not {VERSION}")
