"""Times that follow from a junction's table: changes between stages, cycles, useful stages."""

from citybrain.signals import Junction, LocalPlan, Step, Table


def changeover_ms(table: Table, before: frozenset[str], after: frozenset[str]) -> int:
    """From the end of one stage's green until all groups of the next are green, in ms.

    Pedestrians close first where they need longest, so this is the longest way of a closing
    group (yellow and clearance) that excludes an opening one; 0 if nothing has to close.
    """
    groups = {group.id: group for group in table.groups}
    longest = 0
    for one, other in table.conflicts:
        for closing, opening in ((one, other), (other, one)):
            if closing in before - after and opening in after - before:
                group = groups[closing]
                longest = max(longest, group.yellow_ms + group.clear_ms)
    return longest


def schedule(junction: Junction, plan: LocalPlan | None = None) -> list[tuple[str, int, int]]:
    """(stage, ms of change to it, ms of green) of a plan's steps, in the order of the cycle."""
    plan = plan or junction.plan
    green = {stage.name: frozenset(stage.green) for stage in junction.stages}
    rows = []
    for number, step in enumerate(plan.steps):
        before = green[plan.steps[number - 1].stage]
        change = changeover_ms(junction.table, before, green[step.stage])
        rows.append((step.stage, change, step.green_ms))
    return rows


def cycle_ms(junction: Junction, plan: LocalPlan | None = None) -> int:
    """Length of a plan's cycle."""
    return sum(change + green for _, change, green in schedule(junction, plan))


def fitted(greens_ms: list[int], shortest_ms: list[int], total_ms: int) -> list[int]:
    """Greens shortened or lengthened to a total, none below its shortest; the longest give most.

    >>> fitted([30_000, 3_000], [5_000, 5_000], 30_000)
    [25000, 5000]
    """
    greens = [max(green, least) for green, least in zip(greens_ms, shortest_ms, strict=True)]
    excess = sum(greens) - total_ms
    spare = [green - least for green, least in zip(greens, shortest_ms, strict=True)]
    if excess > 0 and sum(spare) > 0:
        share = min(1.0, excess / sum(spare))
        greens = [green - round(share * left) for green, left in zip(greens, spare, strict=True)]
    elif excess < 0:
        whole = sum(greens)
        greens = [green + round(-excess * green / whole) for green in greens]
    return greens


def useful_stages(junction: Junction) -> list[str]:
    """Stages worth choosing: not contained in another one that protects the same links."""
    links = {group.id: group.links for group in junction.table.groups}
    green = {stage.name: frozenset(stage.green) for stage in junction.stages}
    found: list[str] = []
    for name, open_ in green.items():
        contained = any(
            (open_ < other or (open_ == other and earlier in found))
            and _protected(junction, links, open_) <= _protected(junction, links, other)
            for earlier, other in green.items()
            if earlier != name
        )
        if not contained:
            found.append(name)
    return found


def _protected(
    junction: Junction, links: dict[str, list[int]], open_: frozenset[str]
) -> frozenset[int]:
    """Links of a stage that need give way to nobody in it."""
    mine = {link for group in open_ for link in links[group]}
    return frozenset(link for link in mine if not mine & set(junction.yields.get(str(link), ())))


def with_greens(plan: LocalPlan, greens_ms: list[int]) -> LocalPlan:
    """The same steps with other green times."""
    steps = [
        Step(stage=step.stage, green_ms=green)
        for step, green in zip(plan.steps, greens_ms, strict=True)
    ]
    return LocalPlan(steps=steps, offset_ms=plan.offset_ms)
