"""Junctions of a street network in SUMO's format: groups, conflicts, stages, local plans.

The shipped programs say which links are green together; clearances come from geometry.
Yellow by approach speed as in RiLSA 2015 (3 s to 50 km/h, 4 s to 60, 5 s above), all-red from
the length of the way through the junction, walking speed 1.2 m/s.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from citybrain.errors import PackError
from citybrain.signals import Group, Junction, LocalPlan, Movement, StageDef, Step, Table

REACH_M = 150.0
"""How far upstream of the stop line the queue is measured."""

_WALK_M_S = 1.2
_ROAD_TYPES = ("static", "actuated", "delay_based", "NEMA")


def read(net_file: Path, *, min_green_ms: int = 5_000, max_red_ms: int = 120_000) -> list[Junction]:
    """Every road signal of a network. Rail signals and crossings are left alone.

    Raises PackError if the file is not a network or a program has no green stage.
    """
    import sumolib

    try:
        net = sumolib.net.readNet(
            str(net_file), withPrograms=True, withInternal=True, withPedestrianConnections=True
        )
    except Exception as error:  # sumolib raises whatever its XML parser does
        raise PackError(f"{net_file}: not a readable SUMO network: {error}") from error
    found = []
    for light in net.getTrafficLights():
        program = next(iter(light.getPrograms().values()), None)
        if program is None or program.getType() not in _ROAD_TYPES:
            continue
        junction = _junction(net, light, program, min_green_ms, max_red_ms)
        if junction is not None:
            found.append(junction)
    return found


def _junction(
    net: Any, light: Any, program: Any, min_green_ms: int, max_red_ms: int
) -> Junction | None:
    phases = program.getPhases()
    green = [
        (phase.duration, frozenset(i for i, lamp in enumerate(phase.state) if lamp in "Gg"))
        for phase in phases
        if "y" not in phase.state.lower() and any(lamp in "Gg" for lamp in phase.state)
    ]
    if len({open_ for _, open_ in green}) < 2:
        return None  # nothing to decide
    links = _links(net, light, max(len(phase.state) for phase in phases))
    patterns: dict[tuple[bool, tuple[bool, ...]], list[_Link]] = {}
    for link in links.values():
        pattern = tuple(link.index in open_ for _, open_ in green)
        if any(pattern):
            patterns.setdefault((link.walks, pattern), []).append(link)
    groups: list[Group] = []
    named: dict[int, str] = {}
    for number, ((walks, _), members) in enumerate(sorted(patterns.items(), key=_first)):
        group = _group(f"{'p' if walks else 'v'}{number + 1}", members, min_green_ms, max_red_ms)
        groups.append(group)
        named |= dict.fromkeys((m.index for m in members), group.id)
    stages: dict[frozenset[str], StageDef] = {}
    steps = []
    for duration, open_ in green:
        members_open = frozenset(named[i] for i in open_ if i in named)
        stage = stages.setdefault(
            members_open, StageDef(name=f"s{len(stages) + 1}", green=sorted(members_open))
        )
        steps.append(Step(stage=stage.name, green_ms=round(duration * 1000)))
    return Junction(
        id=light.getID(),
        table=Table(
            junction=light.getID(),
            groups=groups,
            conflicts=_conflicts(links, named, list(stages)),
        ),
        stages=list(stages.values()),
        plan=LocalPlan(steps=steps, offset_ms=round(float(program.getOffset()) * 1000)),
        movements=[m for group in groups for m in _movements(net, group, links)],
        yields=_yields([phase.state for phase in phases], links),
    )


@dataclass(slots=True)
class _Link:
    """One lamp position: the ways that it opens."""

    index: int
    walks: bool
    ways: list[Any]

    def crosses(self, other: "_Link") -> bool:
        """Whether some way of one conflicts with some way of the other in the network."""
        for a in self.ways:
            for b in other.ways:
                if a.getJunction() is b.getJunction() and a.getJunction().areFoes(
                    a.getJunctionIndex(), b.getJunctionIndex()
                ):
                    return True
        return False


def _first(entry: tuple[Any, list[_Link]]) -> int:
    return min(link.index for link in entry[1])


def _links(net: Any, light: Any, size: int) -> dict[int, _Link]:
    found: dict[int, _Link] = {}
    for edge in net.getEdges(withInternal=True):
        for lane in edge.getLanes():
            for way in lane.getOutgoing():
                if way.getTLSID() != light.getID() or not 0 <= way.getTLLinkIndex() < size:
                    continue
                walks = way.getTo().getFunction() == "crossing"
                link = found.setdefault(
                    way.getTLLinkIndex(), _Link(way.getTLLinkIndex(), walks, [])
                )
                link.ways.append(way)
    return dict(sorted(found.items()))


def _group(name: str, links: list[_Link], min_green_ms: int, max_red_ms: int) -> Group:
    ways = [way for link in links for way in link.ways]
    if links[0].walks:
        length = max(way.getToLane().getLength() for way in ways)
        return Group(
            id=name, kind="pedestrian", links=[link.index for link in links],
            min_green_ms=min_green_ms, yellow_ms=0,
            clear_ms=math.ceil(length / _WALK_M_S) * 1000, max_red_ms=0,
        )  # fmt: skip
    speed = max(way.getFromLane().getSpeed() for way in ways)
    inside = max((_inside_m(way) for way in ways), default=0.0)
    return Group(
        id=name, kind="vehicle", links=[link.index for link in links],
        min_green_ms=min_green_ms, yellow_ms=_yellow_ms(speed),
        # A car that enters at the end of yellow has left when the next one has got there.
        clear_ms=min(4_000, max(1_000, math.ceil(inside / max(speed, 8.0) - 1.0) * 1000)),
        max_red_ms=max_red_ms,
    )  # fmt: skip


def _yellow_ms(speed_m_s: float) -> int:
    kmh = speed_m_s * 3.6
    return 3_000 if kmh <= 51 else 4_000 if kmh <= 61 else 5_000


def _inside_m(way: Any) -> float:
    """Length of the way through the junction, stop line to exit, as the crow flies."""
    (x0, y0), (x1, y1) = way.getFromLane().getShape()[-1], way.getToLane().getShape()[0]
    return math.hypot(x1 - x0, y1 - y0)


def _conflicts(
    links: dict[int, _Link], named: dict[int, str], stages: list[frozenset[str]]
) -> list[tuple[str, str]]:
    """Groups whose ways cross, save those that some shipped stage opens together (there the
    right of way decides, as for a left turn against oncoming traffic)."""
    found = set()
    for i, one in links.items():
        for j, other in links.items():
            if i >= j or i not in named or j not in named or named[i] == named[j]:
                continue
            pair = (min(named[i], named[j]), max(named[i], named[j]))
            if pair in found or any(set(pair) <= stage for stage in stages):
                continue
            if one.crosses(other):
                found.add(pair)
    return sorted(found)


def _yields(states: list[str], links: dict[int, _Link]) -> dict[str, list[int]]:
    """Which links give way to which, as the shipped states say: `g` beside a crossing `G`."""
    found: dict[int, set[int]] = {}
    for state in states:
        for i, lamp in enumerate(state):
            if lamp != "g" or i not in links:
                continue
            for j, other in enumerate(state):
                if other == "G" and j in links and links[i].crosses(links[j]):
                    found.setdefault(i, set()).add(j)
    return {str(i): sorted(others) for i, others in sorted(found.items())}


def _movements(net: Any, group: Group, links: dict[int, _Link]) -> list[Movement]:
    """One movement per lane in, since a lane's queue is what a detector sees."""
    by_lane: dict[str, set[str]] = {}
    for index in group.links:
        for way in links[index].ways:
            source = way.getFromLane().getID()
            by_lane.setdefault(source, set()).add(way.getToLane().getID())
    found = []
    for source, targets in sorted(by_lane.items()):
        seen = [] if group.kind == "pedestrian" else list(_upstream(net.getLane(source)))
        found.append(
            Movement(
                group=group.id,
                lanes_in=[source],
                lanes_out=sorted(targets),
                detectors=[lane for lane, _ in seen],
                shares=[share for _, share in seen],
            )
        )
    return found


def _upstream(lane: Any, share: float = 1.0, so_far_m: float = 0.0) -> Iterator[tuple[str, float]]:
    """Lanes that lead to a stop line within reach, up to the signal before, with the share of
    their vehicles that can be bound for it."""
    yield lane.getID(), share
    so_far_m += lane.getLength()
    if so_far_m >= REACH_M or not lane.getEdge().getIncoming():
        return
    for way in lane.getIncomingConnections():
        before = way.getFromLane()
        if way.getTLSID() or before.getEdge().getFunction() or not before.allows("passenger"):
            continue
        branches = len({out.getToLane().getID() for out in before.getOutgoing()})
        yield from _upstream(before, share / max(1, branches), so_far_m)
