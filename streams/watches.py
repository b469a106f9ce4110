"""The rules of a shard at work: which watch takes which windows, and what is saved of them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import msgspec

from citybrain.changes import rules_version
from citybrain.city import City
from citybrain.kinds import Kind
from citybrain.models import detectors
from citybrain.models.block import pack, unpack
from citybrain.models.detectors.base import Axis
from citybrain.models.fit import Model
from citybrain.models.links import Links
from citybrain.models.seen import Seen
from citybrain.models.series import Series
from citybrain.models.watch import Verdict, Watch
from citybrain.rules import Rule, adjusted
from citybrain.streams import blocks

LINKS = "links"
"""Stands for the kind of the rules on links."""


class Names(msgspec.Struct, frozen=True):
    """Head of an array block: whose rows these are."""

    names: tuple[str, ...]
    version: int = blocks.VERSION


@dataclass(frozen=True, slots=True)
class Found:
    """What a rule's watch said of a window."""

    rule: Rule
    seen: Seen
    verdicts: list[Verdict]


class Watches:
    """Blocks of its state: `watch/<rule>/<kind>`. pack: version of the rules as they stand."""

    def __init__(self, city: City, series: Mapping[str, Series], links: Links | None) -> None:
        self._city, self._series, self._links = city, series, links
        self._rules: dict[str, Rule] = {}
        self._watches: dict[tuple[str, str], Watch] = {}
        self._of: dict[str, list[tuple[str, Watch]]] = {}
        self._dirty: set[str] = set()
        self.pack = city.version

    def change(self, settings: Mapping[str, float | str | bool]) -> None:
        """`adjust`, while at work: what a rule that is on again begins with is nothing, also
        after a crash."""
        before = self._watches.keys()
        self.adjust(settings)
        self._dirty |= {f"watch/{rule}/{kind}" for rule, kind in before ^ self._watches.keys()}

    def adjust(self, settings: Mapping[str, float | str | bool]) -> None:
        """Make the watches of the rules as they stand now; what lasts goes on."""
        self._rules = adjusted(self._city.rules, settings)
        self.pack = rules_version(self._city.version, settings)
        before, self._watches = self._watches, {}
        for rule in self._rules.values():
            for name, kind, axis in self._places(rule):
                detector = detectors.create(rule, kind, axis) if axis.names else None
                if detector is not None:
                    watch = self._watches[rule.name, name] = Watch(detector)
                    if (rule.name, name) in before:
                        watch.adopt(before[rule.name, name])
        self._of = {}
        for (rule_name, name), watch in self._watches.items():
            self._of.setdefault(name, []).append((rule_name, watch))

    def _places(self, rule: Rule) -> Iterator[tuple[str, Kind, Axis]]:
        """Where a rule works: on the links, or on the sensors of its kinds."""
        if not rule.enabled:
            return
        if rule.detector == "congestion":
            if self._links:
                yield LINKS, self._series[self._links.kinds[0]].kind, self._links.axis
            return
        for name, series in self._series.items():
            if not rule.kinds or name in rule.kinds:
                yield name, series.kind, series.axis

    def take(self, name: str, seen: Seen) -> Iterator[Found]:
        """Let the rules on a kind (or `LINKS`) look at a window; those that have something."""
        for rule, watch in self._of.get(name, ()):
            if watch.detector.takes(seen.window_ms):
                self._dirty.add(f"watch/{rule}/{name}")
                verdicts = watch.take(seen)
                if verdicts:
                    yield Found(self._rules[rule], seen, verdicts)

    def prime(self, kind: str, model: Model) -> None:
        """A new model of a kind takes effect."""
        for rule, watch in self._of.get(kind, ()):
            watch.prime(model)
            self._dirty.add(f"watch/{rule}/{kind}")

    def changed(self) -> Mapping[str, bytes]:
        """Blocks that changed since the last call."""
        found = {}
        for name in sorted(self._dirty):
            rule, _, kind = name.removeprefix("watch/").rpartition("/")
            watch = self._watches.get((rule, kind))
            found[name] = pack(Names(watch.detector.names), watch.arrays()) if watch else b""
        self._dirty.clear()
        return found

    def restore(self, name: str, block: bytes) -> None:
        """Take back one block; one of a rule that is no more is left."""
        rule, _, kind = name.removeprefix("watch/").rpartition("/")
        if (rule, kind) in self._watches:
            head, arrays = unpack(block, Names)
            blocks.check(name, head.version)
            self._watches[rule, kind].restore(arrays, head.names)
