"""Whatever arrives at a junction, nobody is put in danger, and somebody always gets green."""

import os
import random
from collections import Counter
from collections.abc import Callable

import msgspec
import pytest

from citybrain.edge import arbiter as arbiters
from citybrain.edge.arbiter import LOCAL, Arbiter, Limits
from citybrain.edge.interlock import Interlock, Verdict
from citybrain.errors import PackError
from citybrain.signals import Junction, Lamp, LocalPlan, Plan, Step, Table, signed
from tests.unit.test_interlock import unsafe
from tests.unit.test_signal_models import JUNCTION

KEY = b"of this junction alone"
UTC = 1_700_000_000_000
INPUTS = 1_000_000 if os.environ.get("CITYBRAIN_TEST_SIZE") == "full" else 30_000


def plan(now_ms: int, number: int, **change: object) -> Plan:
    facts: dict[str, object] = {
        "junction": "j", "sequence": number, "issued_ms": now_ms, "expires_ms": now_ms + 10_000,
        "source": "adaptive", "stage": "b", "why": "test",
    }  # fmt: skip
    return signed(KEY, msgspec.convert(facts | change, Plan))


class Street:
    """An arbiter, its two clocks, and every sequence of lamps that was shown."""

    def __init__(self, junction: Junction = JUNCTION) -> None:
        self.junction = junction
        self.utc, self.up = UTC, 0
        self.sequence = 0
        self.arbiter = Arbiter(junction, KEY, self.utc, self.up)
        self.shown: list[tuple[int, dict[str, Lamp]]] = [(0, self.arbiter.interlock.lamps)]
        self.lives = [self.shown]

    def restart(self) -> None:
        """Power comes back: all lamps red, nothing remembered."""
        self.up += 1_000
        self.arbiter = Arbiter(self.junction, KEY, self.utc, self.up)
        self.shown = [(self.up, self.arbiter.interlock.lamps)]
        self.lives.append(self.shown)

    def second(self, step_ms: int = 1_000, calls: tuple[str, ...] = ()) -> Verdict:
        self.utc += step_ms
        self.up += step_ms
        verdict = self.arbiter.tick(self.utc, self.up, calls)
        self.shown.append((self.up, verdict.lamps))
        return verdict

    def send(self, **change: object) -> str:
        """Send a plan; the rule that refuses it, or nothing."""
        self.sequence += 1
        refusal = self.arbiter.take(self.utc, plan(self.utc, self.sequence, **change))
        return refusal.rule if refusal else ""

    def dangers(self) -> list[str]:
        return [why for life in self.lives for why in unsafe(self.junction.table, life)]


def hostile(street: Street, seed: int, inputs: int) -> Counter[str]:
    """Plans of every kind and rank, mostly wrong; buttons, clock jumps, pauses, restarts."""
    rng = random.Random(seed)
    met: Counter[str] = Counter()
    kept: list[Plan] = []
    for _ in range(inputs):
        kind = rng.random()
        if kind < 0.45:
            met["tick"] += 1
            calls = ("walk", "nobody") if rng.random() < 0.2 else ()
            street.second(rng.choice((0, 1, 200, 999, 1_000, 1_000, 1_000, 1_700)), calls)
        elif kind < 0.93:
            change: dict[str, object] = {
                "stage": rng.choice("ab"),
                "source": rng.choice(arbiters.RANKS),
                "expires_ms": street.utc + rng.choice((-1, 1, 5_000, 20_000, 60_000, 10**9)),
            }
            if rng.random() < 0.3:
                change |= rng.choice(
                    (
                        {"stage": "c"}, {"stage": ""}, {"junction": "k"},
                        {"issued_ms": street.utc + 60_000}, {"issued_ms": street.utc - 60_000},
                        {"issued_ms": 0}, {"sequence": 0}, {"mac": "00"}, {"expires_ms": -(2**60)},
                    )
                )  # fmt: skip
            street.sequence += 1
            made = plan(street.utc, street.sequence, **change)
            if rng.random() < 0.1:
                made = msgspec.structs.replace(made, mac="f" * 64)
            if kept and rng.random() < 0.15:
                made = rng.choice(kept)
            kept = [*kept[-50:], made]
            refusal = street.arbiter.take(street.utc, made)
            met[refusal.rule if refusal else "taken"] += 1
        elif kind < 0.97:
            met["clock"] += 1
            street.utc += rng.choice((-3_600_000, -5_000, 5_000, 3_600_000, 86_400_000))
        elif kind < 0.995:
            met["pause"] += 1
            street.second(rng.choice((2_001, 9_000, 600_000)))
        else:
            met["restart"] += 1
            street.restart()
    return met


def test_no_hostile_input_ever_leads_to_an_unsafe_sequence_of_lamps() -> None:
    met: Counter[str] = Counter()
    runs = 10
    for seed in range(runs):
        street = Street()
        met += hostile(street, seed, INPUTS // runs)
        assert street.dangers() == []
        assert any(lamps["main"] == "green" for life in street.lives for _, lamps in life)
        assert any(lamps["side"] == "green" for life in street.lives for _, lamps in life)
    rules = {"taken", "junction", "signature", "stage", "sequence", "clock", "stale", "expired",
             "validity", "restart", "pause", "tick"}  # fmt: skip
    assert rules <= set(met), "the test did not reach every rule"


@pytest.mark.parametrize(
    ("change", "rule", "why"),
    [
        ({"junction": "k"}, "junction", "'k' is not 'j'"),
        ({"stage": "z"}, "stage", "'z' is not one of ['a', 'b']"),
        ({"issued_ms": UTC + 9_000}, "clock", "ahead of this clock"),
        ({"issued_ms": UTC - 1}, "restart", "before the start"),
        ({"expires_ms": UTC + 1_000}, "expired", "0 ms ago"),
        ({"expires_ms": UTC + 10**8}, "validity", "at most 60000"),
    ],
)
def test_a_refused_plan_is_told_what_was_wrong(
    change: dict[str, object], rule: str, why: str
) -> None:
    street = Street()
    street.second()
    refusal = street.arbiter.take(street.utc, plan(street.utc, 1, **change))
    assert refusal is not None
    assert refusal.rule == rule
    assert why in refusal.why
    assert list(street.arbiter.refusals) == [refusal]


def test_a_plan_that_was_tampered_with_or_sent_twice_is_refused() -> None:
    street = Street()
    street.second()
    good = plan(street.utc, 1)
    forged = street.arbiter.take(street.utc, msgspec.structs.replace(good, stage="a"))
    assert forged is not None
    assert forged.rule == "signature"
    assert street.arbiter.take(street.utc, good) is None
    again = street.arbiter.take(street.utc, good)
    assert again is not None
    assert again.rule == "sequence"


def test_the_strongest_fresh_plan_is_followed_and_the_weaker_one_after_it() -> None:
    street = Street()
    street.second()
    assert street.send(source="adaptive", stage="a", expires_ms=street.utc + 50_000) == ""
    assert street.send(source="operator", stage="b", expires_ms=street.utc + 20_000) == ""
    assert street.send(source="emergency", stage="a", expires_ms=street.utc + 50_000) == ""
    followed = []
    for _ in range(60):
        street.second()
        followed.append(street.arbiter.source)
    assert followed == ["operator"] * 22 + ["emergency"] * 30 + ["local"] * 8
    assert street.dangers() == []


def test_without_fresh_plans_the_local_plan_is_back_within_the_stated_time() -> None:
    street = Street()
    street.second()
    street.send(stage="b", expires_ms=street.utc + 10_000)
    limits = Limits()
    ended = street.up + 10_000
    while street.arbiter.source != LOCAL or street.up < ended:
        street.second()
        assert street.up <= ended + limits.silence_ms
    rows: list[tuple[int, str]] = []
    for _ in range(300):
        street.second()
        rows.append(
            (street.utc, "".join(k for k, v in street.shown[-1][1].items() if v == "green"))
        )
    cycle = 74_000
    into = [((utc - JUNCTION.plan.offset_ms) % cycle, open_) for utc, open_ in rows[74:]]
    assert all(open_ == "main" for at, open_ in into if 10_000 <= at <= 48_000)
    assert all("side" in open_ for at, open_ in into if 55_000 <= at <= 65_000)
    assert street.dangers() == []


def test_who_asks_for_one_stage_for_ever_is_overruled_when_the_others_have_waited_too_long() -> (
    None
):
    street = Street()
    street.second()
    side = 0
    for _ in range(200):
        street.send(stage="a")
        street.second()
        side += street.shown[-1][1]["side"] == "green"
    assert side >= 5
    assert "maximum red" in {refusal.rule for refusal in street.arbiter.refusals}
    assert street.dangers() == []


def test_an_ambulance_is_not_stopped_by_an_old_red_and_a_request_that_never_ends_is() -> None:
    street = Street()
    for _ in range(100):
        street.send(stage="a")
        street.second()
    followed = []
    for _ in range(150):
        street.send(stage="a", source="emergency")
        street.second()
        followed.append(street.arbiter.source)
    assert set(followed[:85]) == {"emergency"}, "a red from before has stopped the ambulance"
    assert LOCAL in followed[85:100], "a request that never ends is never overruled"
    assert street.dangers() == []


def test_emergencies_one_after_the_other_excuse_no_red_for_ever() -> None:
    street = Street()
    reds = longest = 0
    for second in range(600):
        street.send(stage="a", source="emergency" if second % 20 < 2 else "adaptive",
                    expires_ms=street.utc + 1_500)  # fmt: skip
        street.second()
        reds = 0 if street.shown[-1][1]["side"] == "green" else reds + 1
        longest = max(longest, reds)
    assert 120 <= longest <= 300
    assert street.dangers() == []


def test_a_clock_that_is_set_back_does_not_keep_an_old_plan_alive() -> None:
    street = Street()
    street.second()
    assert street.send(stage="b", expires_ms=street.utc + 10_000) == ""
    street.utc -= 3_600_000
    for _ in range(14):
        street.second()
    assert street.arbiter.source == LOCAL


def test_a_button_gives_walkers_green_in_an_adaptive_stage_and_only_then() -> None:
    for calls in ((), ("walk",)):
        street = Street()
        street.second()
        walked = False
        for n in range(60):
            street.send(stage="b")
            street.second(calls=calls if n == 20 else ())
            walked |= street.shown[-1][1]["walk"] == "green"
        assert walked == bool(calls)


def _blind(_: Interlock, *__: object) -> list[object]:
    return []


@pytest.mark.parametrize("rule", ["_judge", "_foe"])
def test_a_fault_planted_in_the_interlock_is_found(
    rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interlock that lets everything through, under a sequencer that believes a table in
    which nothing excludes anything: the independent reader sees it."""
    monkeypatch.setattr(Interlock, rule, _blind)
    trusting = msgspec.structs.replace(
        JUNCTION,
        table=msgspec.structs.replace(JUNCTION.table, conflicts=[]),
    )
    street = Street(trusting)
    hostile(street, 1, 4_000)
    found = [why for life in street.lives for why in unsafe(JUNCTION.table, life)]
    assert found


def _short(table: Table, **change: int) -> Table:
    return msgspec.structs.replace(
        table, groups=[msgspec.structs.replace(group, **change) for group in table.groups]
    )


@pytest.mark.parametrize(
    ("plant", "rule"),
    [
        (lambda t: _short(t, min_green_ms=500), "minimum green"),
        (lambda t: _short(t, clear_ms=1), "clearance"),
        (lambda t: msgspec.structs.replace(t, conflicts=[]), "conflict"),
    ],
)
def test_the_interlock_finds_a_fault_planted_in_what_the_controller_believes(
    plant: Callable[[Table], Table], rule: str
) -> None:
    """The sequencer runs from a wrong table; the interlock's own one refuses."""
    wrong = msgspec.structs.replace(
        JUNCTION,
        table=plant(JUNCTION.table),
        plan=LocalPlan(steps=[Step(stage="a", green_ms=2_000), Step(stage="b", green_ms=2_000)]),
    )
    street = Street(wrong)
    street.arbiter.interlock = Interlock(JUNCTION.table, 0)
    for _ in range(300):
        street.second()
    assert rule in {refusal.rule for refusal in street.arbiter.refusals}
    assert list(unsafe(JUNCTION.table, street.shown)) == []


@pytest.mark.parametrize(
    "steps", [[Step(stage="z", green_ms=9_000)], [Step(stage="a", green_ms=0)]]
)
def test_a_local_plan_that_cannot_run_is_refused_at_the_start(steps: list[Step]) -> None:
    wrong = msgspec.structs.replace(JUNCTION, plan=LocalPlan(steps=steps))
    with pytest.raises((PackError, KeyError)):
        Arbiter(wrong, KEY, UTC)
