"""Fixed plans timed for measured flows: Webster's method (Road Research Technical Paper 39,
1958): cycle (1.5 L + 5) / (1 - Y), green in proportion to each step's critical flow ratio."""

from collections.abc import Mapping, Sequence

import msgspec

from citybrain.models.signals.timing import fitted, schedule, with_greens
from citybrain.signals import Junction

LONGEST_MS = 120_000
SHORTEST_MS = 40_000


def retimed(
    junctions: Sequence[Junction], flows: Mapping[tuple[str, str], float]
) -> list[Junction]:
    """The junctions with plans for these flows (edge in, edge out -> vehicles an hour).

    All get the cycle of the most loaded one, so that offsets keep their meaning.
    """
    ratios = [_ratios(junction, flows) for junction in junctions]
    cycle = max(
        (_cycle_ms(j, row) for j, row in zip(junctions, ratios, strict=True)), default=LONGEST_MS
    )
    return [_timed(j, row, cycle) for j, row in zip(junctions, ratios, strict=True)]


def _cycle_ms(junction: Junction, ratios: Sequence[float]) -> int:
    lost_s = sum(change for _, change, _ in schedule(junction)) / 1000
    whole = min(sum(ratios), 0.95)
    return int(min(LONGEST_MS, max(SHORTEST_MS, (1.5 * lost_s + 5) / (1 - whole) * 1000)))


def _ratios(junction: Junction, flows: Mapping[tuple[str, str], float]) -> list[float]:
    """Critical flow ratio of each step. A lane that is open in several steps asks of each what
    its share of the shipped green is."""
    steps = junction.plan.steps
    green = {stage.name: frozenset(stage.green) for stage in junction.stages}
    lanes: dict[str, float] = {}
    open_in: dict[str, set[int]] = {}
    turns: dict[tuple[str, str], set[str]] = {}
    for move in junction.movements:
        source = move.lanes_in[0]
        for lane in move.lanes_out:
            turns.setdefault((_edge(source), _edge(lane)), set()).add(source)
        for number, step in enumerate(steps):
            if move.group in green[step.stage]:
                open_in.setdefault(source, set()).add(number)
    for turn, sources in turns.items():
        for source in sources:
            lanes[source] = lanes.get(source, 0.0) + flows.get(turn, 0.0) / len(sources)
    saturation = {m.lanes_in[0]: m.saturation_veh_h for m in junction.movements}
    ratios = [0.02] * len(steps)
    for source, flow in lanes.items():
        numbers = open_in.get(source, set())
        whole = sum(steps[n].green_ms for n in numbers)
        for n in numbers:
            asked = flow / saturation[source] * steps[n].green_ms / whole
            ratios[n] = max(ratios[n], asked)
    return ratios


def _timed(junction: Junction, ratios: Sequence[float], cycle: int) -> Junction:
    rows = schedule(junction)
    minimum = {group.id: group.min_green_ms for group in junction.table.groups}
    green = {stage.name: frozenset(stage.green) for stage in junction.stages}
    shortest = []
    for number, (stage, _, _) in enumerate(rows):
        before, after = rows[number - 1][0], rows[(number + 1) % len(rows)][0]
        alone = green[stage] - green[before] - green[after]
        shortest.append(max((minimum[name] for name in alone), default=1_000))
    left = cycle - sum(change for _, change, _ in rows)
    greens = [round(left * ratio / sum(ratios)) for ratio in ratios]
    plan = with_greens(junction.plan, fitted(greens, shortest, left))
    return msgspec.structs.replace(junction, plan=plan)


def _edge(lane: str) -> str:
    return lane.rpartition("_")[0]
