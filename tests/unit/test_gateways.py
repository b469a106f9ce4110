"""The shard's watermark against one that looks at every gateway each time."""

from hypothesis import given
from hypothesis import strategies as st

from citybrain.batch import LeaveOut
from citybrain.streams.gateways import Gateways

RING_MS = 100
NAMES = ("a", "b", "c")
SPEAK = st.tuples(st.just("speak"), st.sampled_from(NAMES), st.integers(0, 500))
OTHER = st.tuples(st.sampled_from(["leave", "silent", "lagging"]), st.sampled_from(NAMES),
                  st.integers(0, 90_000))  # fmt: skip


def looked_up(gateways: Gateways) -> int | None:
    """The slowest of those that are waited for."""
    marks = [
        one.watermark_ms
        for name, one in gateways.known.items()
        if one.watermark_ms is not None and gateways.waited_for(name)
    ]
    return min(marks, default=None)


@given(st.lists(st.one_of(SPEAK, SPEAK, OTHER), max_size=60), st.integers(0, 60))
def test_the_watermark_is_the_slowest_that_is_waited_for_whoever_spoke_last(
    steps: list[tuple[str, str, int]], restart: int
) -> None:
    gateways = Gateways(dict.fromkeys(NAMES, RING_MS))
    expected: int | None = None
    for number, (what, name, value) in enumerate(steps):
        if number == restart:
            saved, mark = gateways.blocks() | _all(gateways), gateways.watermark_ms
            gateways = Gateways(dict.fromkeys(NAMES, RING_MS))
            gateways.watermark_ms = mark
            for key, block in saved.items():
                gateways.restore(key, block)
            gateways.settle()
        if what == "speak":
            gateways.speak(name, value, at_ms=number * 1_000)
        elif what == "leave":
            gateways.leave(name)
        else:
            record = LeaveOut(shard="s", gateway=name, reason=what, at_ms=value)  # type: ignore[arg-type]  # one of its two
            gateways.leave_out(record, value)
        slowest = looked_up(gateways)
        if slowest is not None:
            expected = slowest if expected is None else max(expected, slowest)
        assert gateways.watermark_ms == expected


def _all(gateways: Gateways) -> dict[str, bytes]:
    gateways.changed.update(gateways.known)
    return gateways.blocks()


def test_a_thousand_gateways_that_take_turns_leave_no_endless_queue_behind() -> None:
    names = [f"g{i}" for i in range(1_000)]
    gateways = Gateways(dict.fromkeys(names, 10**9))
    gateways.speak("still", 0, 0)
    for turn in range(20):
        for name in names:
            gateways.speak(name, 1_000 + turn, turn)
    assert gateways.watermark_ms == 0
    assert len(gateways._queue) <= 64 + 5 * len(gateways.known)
