"""The traffic engineer's measures, on a junction whose vehicles a test places itself."""

from typing import Any

from citybrain.edge.phase_measures import PhaseMeterer
from citybrain.signals import Lamp
from tests.unit.test_signal_models import JUNCTION

BAR_M = 100.0  # where the areas at the stop lines end


class Lane:
    """As much of SUMO as is looked at: vehicles in the areas, and how far along their lane."""

    def __init__(self) -> None:
        self.cars: dict[str, dict[str, float]] = {}
        self.lanearea = self.vehicle = self

    def getLastStepVehicleIDs(self, area: str) -> tuple[str, ...]:
        return tuple(self.cars.get(area, ()))

    def getLanePosition(self, car: str) -> float:
        return next(cars[car] for cars in self.cars.values() if car in cars)


def play(seconds: list[tuple[Lamp, dict[str, float]]]) -> Any:
    """Second by second: the lamp of `main`, and the cars on its way with their position."""
    meterer, lane = PhaseMeterer(JUNCTION), Lane()
    for second, (lamp, cars) in enumerate(seconds):
        lane.cars = {"main:0": cars}
        meterer.look(lane, second, {"main": lamp, "side": "red", "walk": "red"})
    return meterer.figures()


def test_cars_that_come_at_green_are_arrivals_on_green() -> None:
    seen = play([("green", {"a": 60.0}), ("green", {"b": 60.0}), ("red", {"c": 60.0}),
                 ("red", {"c": 70.0, "d": 60.0})])  # fmt: skip
    assert (seen.arrivals, seen.arrivals_on_green) == (4, 0.5)


def test_a_green_that_leaves_cars_behind_is_a_split_failure_and_a_free_one_is_not() -> None:
    full: list[tuple[Lamp, dict[str, float]]] = [("red", {"a": 95.0})] * 10
    full += [("green", {"a": 95.0})] * 20 + [("yellow", {"a": 95.0})] * 3
    left = play([*full, *[("red", {"b": 95.0})] * 6])
    assert (left.phases, left.split_failures) == (1, 1)
    cleared = play([*full, *[("red", {})] * 6])
    assert (cleared.phases, cleared.split_failures) == (1, 0)


def test_the_phase_wait_counts_from_the_first_call_to_green() -> None:
    waits = play([("red", {})] * 10 + [("red", {"a": 96.0})] * 25 + [("green", {"a": 96.0})])
    assert waits.phase_wait_s == 25.0
    far = play([("red", {"a": 55.0})] * 25 + [("green", {"a": 55.0})])
    assert far.phase_wait_s is None, "a car that has not reached the stop line calls nobody"
