"""What alerts change at a junction: whose waiting counts more, and which movements are held."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from citybrain.alerts import Alert
from citybrain.signals import Because, Control, Junction, Response


@dataclass(slots=True)
class Effects:
    """Of all active alerts on one junction. weight, blocked: as in `View`."""

    weight: dict[str, float] = field(default_factory=dict)
    blocked: set[str] = field(default_factory=set)
    because: list[Because] = field(default_factory=list)


class Responder:
    """Knows where a junction's movements come from and lead to.

    zones: link -> its zone, so that an alert on a zone finds its junctions.
    """

    def __init__(self, junction: Junction, control: Control, zones: Mapping[str, str]) -> None:
        self._rows = {row.cause: row for row in control.responses}
        walks = {g.id for g in junction.table.groups if g.kind == "pedestrian"}
        lane_of = {area.id: area.lane for area in junction.areas}
        self._walks = walks
        self._from: dict[str, set[str]] = {}
        self._into: dict[str, list[set[str]]] = {}
        for move in junction.movements:
            if move.group in walks:
                continue
            seen = [lane_of[detector] for detector in move.detectors]
            self._from.setdefault(move.group, set()).update(map(link_of, [*move.lanes_in, *seen]))
            self._into.setdefault(move.group, []).append({link_of(n) for n in move.lanes_out})
        edges = {link for links in self._from.values() for link in links}
        self._zones = {zones[link] for link in edges if link in zones} | {junction.zone} - {""}

    def effects(self, alerts: Iterable[Alert]) -> Effects:
        """Of these alerts, the active ones that a response is stated for."""
        found = Effects()
        for alert in alerts:
            row = self._rows.get(alert.cause)
            if row is None or not alert.active:
                continue
            changed = self._weigh(row, alert, found)
            if changed:
                found.because.append(
                    Because(alert=alert.id, cause=alert.cause, zh=row.zh, en=row.en)
                )
        return found

    def _weigh(self, row: Response, alert: Alert, found: Effects) -> bool:
        """Enter what one alert changes; whether it changes anything here."""
        link = alert.place.link
        factors: dict[str, float] = {}
        if link:
            for group, links in self._from.items():
                if link in links and row.out_of != 1.0:
                    factors[group] = row.out_of
            for group, ways in self._into.items():
                share = sum(link in way for way in ways) / len(ways)
                if share and row.into != 1.0:
                    factors[group] = factors.get(group, 1.0) * (1 + share * (row.into - 1))
                if share == 1.0 and row.hold:
                    found.blocked.add(group)
                    factors.setdefault(group, 1.0)
        elif row.walkers != 1.0 and alert.place.zone in {"", *self._zones}:
            factors = dict.fromkeys(sorted(self._walks), row.walkers)
        for group, factor in factors.items():
            found.weight[group] = found.weight.get(group, 1.0) * factor
        return bool(factors)


def link_of(lane: str) -> str:
    """The link that a lane belongs to: its id without the lane's number."""
    return lane.rpartition("_")[0]


def text(because: Sequence[Because], chinese: bool) -> str:
    """The reasons as one line."""
    return (";" if chinese else "; ").join(b.zh if chinese else b.en for b in because)
