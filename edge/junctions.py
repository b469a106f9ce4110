"""Junctions of a street network in SUMO's format: groups, conflicts, stages, local plans.

The shipped programs say which links are green together; clearances come from geometry.
Yellow by approach speed as in RiLSA 2015 (3 s to 50 km/h, 4 s to 60, 5 s above), all-red from
the length of the way through the junction, walking speed 1.2 m/s.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from citybrain.edge import approaches, programs
from citybrain.edge.programs import Program
from citybrain.errors import PackError
from citybrain.models.signals.timing import changeover_ms, fitted
from citybrain.signals import Group, Junction, LocalPlan, StageDef, Step, Table

_WALK_M_S = 1.2


def read(
    net_file: Path,
    additional: Iterable[Path] = (),
    *,
    min_green_ms: int = 5_000,
    max_red_ms: int = 120_000,
) -> list[Junction]:
    """Every road signal of a network. Rail signals and crossings are left alone.

    additional: files whose programs stand in for the network's own, as in SUMO.

    Raises PackError if a file cannot be read or the network is none.
    """
    import sumolib

    found = []
    lights = programs.read(net_file, additional)
    try:
        net = sumolib.net.readNet(str(net_file), withInternal=True, withPedestrianConnections=True)
    except Exception as error:  # sumolib raises whatever its XML parser does
        raise PackError(f"{net_file}: not a readable SUMO network: {error}") from error
    links = _links(net)
    for light, program in sorted(lights.items()):
        junction = _junction(net, program, links.get(light, {}), min_green_ms, max_red_ms)
        if junction is not None:
            found.append(junction)
    return found


def agree(told: Iterable[Junction], net_file: Path) -> None:
    """That commissioned junctions fit the network that they are said to be of.

    Raises PackError for a junction or a lamp that the network does not have, and for two groups
    whose ways cross there though the table lets both be green.
    """
    known = {junction.id: junction for junction in read(net_file)}
    for junction in told:
        there = known.get(junction.id)
        if there is None:
            raise PackError(f"junction {junction.id!r} is not a road signal of {net_file.name}")
        owner = {link: group.id for group in junction.table.groups for link in group.links}
        links = {group.id: group.links for group in there.table.groups}
        lamps = {link for members in links.values() for link in members}
        if odd := sorted(set(owner) ^ lamps):
            raise PackError(
                f"junction {junction.id!r}: lamp {odd[0]}: not in both table and network"
            )
        conflicts = {frozenset(pair) for pair in junction.table.conflicts}
        for one, other in there.table.conflicts:
            for a in links[one]:
                for b in links[other]:
                    pair = frozenset((owner[a], owner[b]))
                    if pair not in conflicts:
                        raise PackError(
                            f"junction {junction.id!r}: conflicts: {' and '.join(sorted(pair))}"
                            f" (lamps {a} and {b}) cross in the network"
                        )


def _junction(
    net: Any, program: Program, links: dict[int, "_Link"], min_green_ms: int, max_red_ms: int
) -> Junction | None:
    walks = frozenset(link.index for link in links.values() if link.walks)
    shown = _shown(program, walks)
    if len({open_ for _, _, open_ in shown}) < 2:
        return None  # nothing to decide
    patterns: dict[tuple[bool, tuple[bool, ...]], list[_Link]] = {}
    for link in links.values():
        pattern = tuple(link.index in open_ for _, _, open_ in shown)
        if any(pattern):
            patterns.setdefault((link.walks, pattern), []).append(link)
    longest_red_ms = max(max_red_ms, round(program.cycle_s * 1000) + 10_000)
    groups: list[Group] = []
    named: dict[int, str] = {}
    for number, ((on_foot, _), members) in enumerate(sorted(patterns.items(), key=_first)):
        name = f"{'p' if on_foot else 'v'}{number + 1}"
        groups.append(_group(name, members, min_green_ms, longest_red_ms))
        named |= dict.fromkeys((m.index for m in members), name)
    names = [frozenset(named[i] for i in open_ if i in named) for _, _, open_ in shown]
    stages: dict[frozenset[str], StageDef] = {}
    for members_open in names:
        stages.setdefault(
            members_open, StageDef(name=f"s{len(stages) + 1}", green=sorted(members_open))
        )
    table = Table(
        junction=program.light, groups=groups, conflicts=_conflicts(links, named, list(stages))
    )
    ways = {link.index: link.ways for link in links.values()}
    moves, areas = approaches.movements(net, groups, ways, program.light)
    return Junction(
        id=program.light,
        table=table,
        stages=list(stages.values()),
        plan=_plan(program, table, names, [(begin, end) for begin, end, _ in shown], stages),
        movements=moves,
        areas=areas,
        yields=_yields([phase.state for phase in program.phases], links),
    )


def _shown(program: Program, walks: frozenset[int]) -> list[tuple[float, float, frozenset[int]]]:
    """(begin, end, open links) of the stages of a cycle, in s; a phase that only closes the
    pedestrians of the stage before belongs to it."""
    found: list[tuple[float, float, frozenset[int]]] = []
    now = 0.0
    for phase in program.phases:
        end = now + phase.duration_s
        if phase.settled:
            if found and found[-1][1] == now and found[-1][2] - phase.open <= walks:
                begin, _, before = found[-1]
                if phase.open <= before:
                    found[-1] = (begin, end, before)
                    now = end
                    continue
            found.append((now, end, phase.open))
        now = end
    return found


def _plan(
    program: Program,
    table: Table,
    names: list[frozenset[str]],
    times: list[tuple[float, float]],
    stages: dict[frozenset[str], StageDef],
) -> LocalPlan:
    """The shipped cycle with proper changes: each step ends where it was shipped to end, and
    what its change needs more than it was given comes off the greens."""
    greens, changes, shortest = [], [], []
    minimum = {group.id: group.min_green_ms for group in table.groups}
    for i, open_ in enumerate(names):
        before, after = names[i - 1], names[(i + 1) % len(names)]
        begun = times[i - 1][1] - (program.cycle_s if i == 0 else 0.0)
        changes.append(changeover_ms(table, before, open_))
        greens.append(round((times[i][1] - begun) * 1000) - changes[-1])
        alone = open_ - before - after
        shortest.append(max((minimum[name] for name in alone), default=1_000))
    greens = fitted(greens, shortest, round(program.cycle_s * 1000) - sum(changes))
    offset_s = program.offset_s + times[-1][1] - program.cycle_s
    return LocalPlan(
        steps=[
            Step(stage=stages[open_].name, green_ms=green)
            for open_, green in zip(names, greens, strict=True)
        ],
        offset_ms=round(offset_s * 1000),
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


def _links(net: Any) -> dict[str, dict[int, _Link]]:
    """Light -> link index -> link, in the order of the index."""
    found: dict[str, dict[int, _Link]] = {}
    for edge in net.getEdges(withInternal=True):
        for lane in edge.getLanes():
            for way in lane.getOutgoing():
                index = way.getTLLinkIndex()
                if not way.getTLSID() or index < 0:
                    continue
                walks = way.getTo().getFunction() == "crossing"
                light = found.setdefault(way.getTLSID(), {})
                light.setdefault(index, _Link(index, walks, [])).ways.append(way)
    return {light: dict(sorted(links.items())) for light, links in found.items()}


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
