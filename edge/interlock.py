"""The interlock: the last word on every change of lamps at a junction.

Pure, and alone: it shares no code with controllers or the arbiter, reads its own table and is
told the time. It sees each change before it is shown and either lets it through or refuses
it whole, with the reason; what it let through is what the lamps show. Its rules:

* conflict: two groups that exclude each other are never open (green or yellow) together.
* clearance: a group goes green only when every conflicting group has been red for at least
  that group's clearance.
* order: green -> yellow -> red -> green, yellow for its exact time (within one tick); groups
  without yellow (pedestrians) green -> red.
* minimum green: a green lasts at least its minimum.
* maximum red: a vehicle group with a stated maximum is not red for longer; the interlock
  cannot make green, so it demands the local plan (`overdue`).
* clock: time never runs backwards; a jump beyond `max_step_ms` means that the history of the
  lamps is unknown, and every duration starts anew.

Rules follow NTCIP 1202's unit checks and the conflict monitor of NEMA TS 2.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from citybrain.errors import PackError
from citybrain.signals import Group, Lamp, Refusal, Table


@dataclass(slots=True)
class _Head:
    """One group's lamps. known: since_ms is true and not a restart's guess."""

    group: Group
    lamp: Lamp
    since_ms: int
    foes: list["_Head"] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the lamps show now, and what was refused (nothing if `refusals` is empty)."""

    lamps: dict[str, Lamp]
    refusals: tuple[Refusal, ...]

    @property
    def granted(self) -> bool:
        """Whether the wanted lamps are shown."""
        return not self.refusals


class Interlock:
    """Watches one junction. Starts with everything red from `now_ms` on.

    max_step_ms: the longest time between two looks at which the lamps' history is trusted.

    Raises PackError if the table does not hold together (an unknown group in a conflict, a
    group twice, a time that is not positive, a vehicle group without yellow).
    """

    def __init__(self, table: Table, now_ms: int, max_step_ms: int = 2_000) -> None:
        self.junction = table.junction
        self.max_step_ms = max_step_ms
        self._now_ms = now_ms
        self._heads: dict[str, _Head] = {}
        for group in table.groups:
            _check(table.junction, group)
            if group.id in self._heads:
                raise PackError(f"table {table.junction}: group {group.id!r} stands here twice")
            self._heads[group.id] = _Head(group, "red", now_ms)
        for one, other in table.conflicts:
            for name in (one, other):
                if name not in self._heads:
                    raise PackError(
                        f"table {table.junction}: conflicts: {name!r} is not one of"
                        f" {sorted(self._heads)}"
                    )
            if one == other:
                raise PackError(f"table {table.junction}: conflicts: {one!r} with itself")
            self._heads[one].foes.append(self._heads[other])
            self._heads[other].foes.append(self._heads[one])

    @property
    def lamps(self) -> dict[str, Lamp]:
        """What is shown."""
        return {name: head.lamp for name, head in self._heads.items()}

    def change(self, now_ms: int, wanted: Mapping[str, Lamp]) -> Verdict:
        """Ask for lamps of some groups (others keep theirs) at `now_ms`.

        All of it is shown or none of it. A refusal is never an error of the caller's program:
        it is returned, with the rule in its `rule`.
        """
        refusals = self._clock(now_ms)
        for name, lamp in wanted.items():
            head = self._heads.get(name)
            if head is None:
                refusals.append(
                    self._no("unknown", f"group {name!r} is not one of {sorted(self._heads)}")
                )
            elif lamp not in ("red", "yellow", "green"):
                refusals.append(self._no("unknown", f"group {name!r}: lamp {lamp!r}"))
            elif lamp != head.lamp:
                refusals.extend(self._judge(head, lamp, wanted))
        if not refusals:
            for name, lamp in wanted.items():
                head = self._heads[name]
                if head.lamp != lamp:
                    head.lamp, head.since_ms = lamp, self._now_ms
        return Verdict(self.lamps, tuple(refusals))

    def overdue(self) -> tuple[Refusal, ...]:
        """Groups whose red or yellow has lasted too long: the local plan must take over."""
        found = []
        for name, head in self._heads.items():
            lasted = self._now_ms - head.since_ms
            limit = head.group.max_red_ms
            if head.lamp == "red" and limit and lasted > limit:
                found.append(self._no("maximum red", f"{name}: red for {lasted} of {limit} ms"))
            if head.lamp == "yellow" and lasted > head.group.yellow_ms + self.max_step_ms:
                found.append(self._no("yellow", f"{name}: {lasted} of {head.group.yellow_ms} ms"))
        return tuple(found)

    def _clock(self, now_ms: int) -> list[Refusal]:
        """Take the time. After a jump all durations start anew, which only lengthens them."""
        step = now_ms - self._now_ms
        if step < 0:
            return [self._no("clock", f"time ran back by {-step} ms")]
        self._now_ms = now_ms
        if step > self.max_step_ms:
            for head in self._heads.values():
                head.since_ms = now_ms
        return []

    def _judge(self, head: _Head, lamp: Lamp, wanted: Mapping[str, Lamp]) -> list[Refusal]:
        name, lasted = head.group.id, self._now_ms - head.since_ms
        group, was = head.group, head.lamp
        closing: Lamp = "yellow" if group.yellow_ms else "red"
        if was == "green":
            if lamp != closing:
                return [self._no("order", f"{name}: green -> {lamp}, expected {closing}")]
            if lasted < group.min_green_ms:
                return [
                    self._no(
                        "minimum green", f"{name}: green for {lasted} of {group.min_green_ms} ms"
                    )
                ]
            return []
        if was == "yellow":
            if lamp != "red":
                return [self._no("order", f"{name}: yellow -> {lamp}, expected red")]
            if lasted < group.yellow_ms:
                return [self._no("yellow", f"{name}: yellow for {lasted} of {group.yellow_ms} ms")]
            return []
        if lamp != "green":
            return [self._no("order", f"{name}: red -> {lamp}, expected green")]
        return [refusal for foe in head.foes for refusal in self._foe(name, foe, wanted)]

    def _foe(self, name: str, foe: _Head, wanted: Mapping[str, Lamp]) -> list[Refusal]:
        """Why `name` may not go green because of one conflicting group."""
        other = foe.group.id
        if foe.lamp != "red" or wanted.get(other, "red") != "red":
            shown = foe.lamp if foe.lamp != "red" else wanted[other]
            return [self._no("conflict", f"{name}: {other} is {shown}")]
        red = self._now_ms - foe.since_ms
        if red < foe.group.clear_ms:
            why = f"{name}: {other} is red for {red} of {foe.group.clear_ms} ms"
            return [self._no("clearance", why)]
        return []

    def _no(self, rule: str, why: str) -> Refusal:
        return Refusal(junction=self.junction, at_ms=self._now_ms, rule=rule, why=why)


def _check(junction: str, group: Group) -> None:
    where = f"table {junction}: group {group.id!r}"
    if not group.id:
        raise PackError(f"{where}: id is empty")
    for name in ("min_green_ms", "clear_ms"):
        if getattr(group, name) <= 0:
            raise PackError(f"{where}: {name}: {getattr(group, name)} is not above 0")
    if group.kind == "vehicle" and not 3_000 <= group.yellow_ms <= 6_000:
        raise PackError(f"{where}: yellow_ms: {group.yellow_ms} is not within 3000 to 6000")
    if group.kind == "pedestrian" and group.yellow_ms:
        raise PackError(f"{where}: yellow_ms: {group.yellow_ms}, pedestrians have none")
    if group.max_red_ms < 0:
        raise PackError(f"{where}: max_red_ms: {group.max_red_ms} is below 0")
