"""Where the vehicles of a signal group come from and go to: area detectors on the network."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from citybrain.signals import Area, Group, Movement

REACH_M = 150.0
"""How far upstream of the stop line vehicles are counted."""

EXIT_M = 60.0
"""How far beyond the junction a tailback is looked for."""

_PIECE_M = 50.0


def movements(
    net: Any, groups: Iterable[Group], ways: Mapping[int, list[Any]], prefix: str
) -> tuple[list[Movement], list[Area]]:
    """One movement per group and lane in (a lane's queue is what a detector sees), with the
    areas that they need. ways: link -> sumolib connections. prefix: of the areas' ids.

    A lane that serves several groups is shared out by their connections.
    """
    by_lane: dict[str, dict[str, list[Any]]] = {}
    for group in groups:
        for link in group.links:
            for way in ways[link]:
                source = way.getFromLane().getID()
                by_lane.setdefault(source, {}).setdefault(group.id, []).append(way)
    areas: dict[str, Area] = {}
    found = []
    for source, by_group in sorted(by_lane.items()):
        total = sum(len(members) for members in by_group.values())
        for name, members in sorted(by_group.items()):
            walks = members[0].getTo().getFunction() == "crossing"
            seen = [] if walks else list(_approach(net.getLane(source), prefix))
            beyond = [] if walks else list(_beyond(members, prefix))
            areas |= {area.id: area for area, _, _ in seen} | {area.id: area for area in beyond}
            found.append(
                Movement(
                    group=name,
                    lanes_in=[source],
                    lanes_out=sorted({way.getToLane().getID() for way in members}),
                    detectors=[area.id for area, _, _ in seen],
                    shares=[share * len(members) / total for _, share, _ in seen],
                    near_m=[near for _, _, near in seen],
                    exits=[area.id for area in beyond],
                    links=sorted({way.getTLLinkIndex() for way in members}),
                    speed_m_s=round(float(members[0].getFromLane().getSpeed()), 2),
                )
            )
    return found, list(areas.values())


def _approach(lane: Any, prefix: str) -> Iterator[tuple[Area, float, float]]:
    """Areas that lead to a stop line within reach and up to the signal before, the stop line's
    first, with the share of their vehicles that can be bound for it and where they begin."""
    waiting = [(lane, 1.0, 0.0)]
    seen = set()
    while waiting:
        lane, share, near_m = waiting.pop(0)
        if lane.getID() in seen:
            continue
        seen.add(lane.getID())
        length = float(lane.getLength())
        for from_stop_m, area in _pieces(lane, length, min(length, REACH_M - near_m), prefix):
            yield area, share, near_m + from_stop_m
        near_m += length
        if near_m >= REACH_M:
            continue
        for way in lane.getIncomingConnections():
            before = way.getFromLane()
            if way.getTLSID() or before.getEdge().getFunction() or not _road(before):
                continue
            branches = len({out.getToLane().getID() for out in before.getOutgoing()})
            waiting.append((before, share / max(1, branches), near_m))


def _pieces(lane: Any, length: float, reach: float, prefix: str) -> Iterator[tuple[float, Area]]:
    """The last `reach` metres of a lane in pieces, the one at its end first."""
    count = max(1, round(reach / _PIECE_M))
    for number in range(count):
        end = length - reach * number / count
        begin = length - reach * (number + 1) / count
        yield (
            reach * number / count,
            Area(
                id=f"{prefix}:{lane.getID()}:{number}",
                lane=lane.getID(),
                begin_m=round(max(0.0, begin), 2),
                end_m=round(end, 2),
            ),
        )


def _beyond(ways: Iterable[Any], prefix: str) -> Iterator[Area]:
    """The first stretch of each lane out."""
    for lane in {way.getToLane().getID(): way.getToLane() for way in ways}.values():
        length = float(lane.getLength())
        if length < 1.0:
            continue
        yield Area(
            id=f"{prefix}:{lane.getID()}:x",
            lane=lane.getID(),
            begin_m=0.0,
            end_m=round(min(length, EXIT_M), 2),
        )


def _road(lane: Any) -> bool:
    return bool(lane.allows("passenger") or lane.allows("bus"))
