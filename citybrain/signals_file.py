"""`signals.toml` of a pack: the junctions with a controller, read and checked."""

import tomllib
from collections.abc import Mapping
from pathlib import Path

import msgspec

from citybrain.errors import TOML_ERRORS, PackError
from citybrain.signals import Control, Junction


class _SignalsFile(msgspec.Struct, forbid_unknown_fields=True):
    control: Control = Control()
    junction: list[Junction] = []


def read(path: Path) -> tuple[Mapping[str, Junction], Control]:
    """Id -> junction, and how they are controlled; no junction if the pack has no such file.

    Raises PackError naming the junction, the field, the value and what was expected.
    """
    if not path.is_file():
        return {}, Control()
    try:
        told = msgspec.convert(tomllib.loads(path.read_text("utf-8")), _SignalsFile)
    except (*TOML_ERRORS, msgspec.ValidationError) as error:
        raise PackError(f"{path}: {error}") from error
    found: dict[str, Junction] = {}
    for junction in told.junction:
        where = f"{path}: junction {junction.id!r}"
        if junction.id in found:
            raise PackError(f"{where}: stands here twice")
        check(where, junction)
        found[junction.id] = junction
    return found, told.control


def check(where: str, junction: Junction) -> None:
    """That a junction holds together in itself.

    Raises PackError for a table of another junction; a group that a stage, a movement or a
    conflict names and the table lacks; a lamp of two groups; a stage with two groups that
    exclude each other; a local plan with an unknown stage, no green or a group never opened.
    """
    if junction.table.junction != junction.id:
        raise PackError(f"{where}: table.junction: {junction.table.junction!r} is another one")
    groups = {group.id: group for group in junction.table.groups}
    for group in junction.table.groups:
        if group.kind == "vehicle" and not 3_000 <= group.yellow_ms <= 6_000:
            raise PackError(
                f"{where}: group {group.id!r}: yellow_ms: {group.yellow_ms} is not within 3000 to"
                " 6000"
            )
        for name in ("min_green_ms", "clear_ms"):
            if getattr(group, name) <= 0:
                value = getattr(group, name)
                raise PackError(f"{where}: group {group.id!r}: {name}: {value} is not above 0")
    owner: dict[int, str] = {}
    for group in junction.table.groups:
        for link in group.links:
            if owner.setdefault(link, group.id) != group.id:
                raise PackError(f"{where}: lamp {link}: of {owner[link]!r} and of {group.id!r}")
    foes = {frozenset(pair) for pair in junction.table.conflicts}
    named = [
        *(("table.conflicts", name) for pair in junction.table.conflicts for name in pair),
        *((f"stage {stage.name!r}", name) for stage in junction.stages for name in stage.green),
        *(("movements", move.group) for move in junction.movements),
    ]
    for place, name in named:
        if name not in groups:
            raise PackError(f"{where}: {place}: group {name!r} is not one of {sorted(groups)}")
    stages = {stage.name: set(stage.green) for stage in junction.stages}
    for pair in sorted(sorted(foe) for foe in foes):
        for name, green in stages.items():
            if set(pair) <= green:
                raise PackError(f"{where}: stage {name!r}: {' and '.join(pair)} exclude each other")
    for step in junction.plan.steps:
        if step.stage not in stages:
            raise PackError(f"{where}: plan: {step.stage!r} is not one of {sorted(stages)}")
        if step.green_ms <= 0:
            raise PackError(f"{where}: plan: green_ms: {step.green_ms} is not above 0")
    opened = {name for step in junction.plan.steps for name in stages[step.stage]}
    if never := sorted(set(groups) - opened):
        raise PackError(f"{where}: plan: {never[0]!r} never gets green")
