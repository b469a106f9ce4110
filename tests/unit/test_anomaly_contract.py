"""One contract over every anomaly detector of the registry."""

import copy

import numpy as np
import pytest

from citybrain.kinds import MINUTE
from citybrain.models.anomaly import DETECTORS
from citybrain.models.block import Arrays

STEP = 5 * MINUTE
WEEK = 7 * 288


@pytest.fixture(params=sorted(DETECTORS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def run(name: str, z: np.ndarray, state: Arrays | None = None) -> np.ndarray:  # type: ignore[type-arg]  # tests
    detector = DETECTORS[name](STEP)
    state = detector.fresh(z.shape[1]) if state is None else state
    return np.array([detector.step(state, row) for row in z])


def noise(rows: int = WEEK, n: int = 4) -> np.ndarray:  # type: ignore[type-arg]  # tests
    return np.random.default_rng(0).normal(0, 1, (rows, n))


def test_scores_are_finite_and_missing_windows_have_none(name: str) -> None:
    z = noise()
    z[50:60, 1] = np.nan
    z[100, 2], z[101, 2] = 1e300, -1e300
    score = run(name, z)
    assert np.isnan(score[50:60, 1]).all()
    score[50:60, 1] = 0.0
    assert np.isfinite(score).all()


def test_no_score_depends_on_the_future(name: str) -> None:
    z = noise(300)
    other = z.copy()
    other[200:] = 9.0
    assert np.array_equal(run(name, z)[:200], run(name, other)[:200])


def test_the_state_is_the_whole_memory(name: str) -> None:
    z = noise(200)
    detector = DETECTORS[name](STEP)
    state = detector.fresh(4)
    run(name, z[:90], state)
    assert np.array_equal(run(name, z[90:], copy.deepcopy(state)), run(name, z)[90:])
    assert all(len(array) == 4 for array in state.values())


def test_an_empty_shard_is_no_special_case(name: str) -> None:
    assert run(name, np.zeros((3, 0))).shape == (3, 0)


def test_sensors_do_not_see_each_other(name: str) -> None:
    z = noise(300)
    wild = z.copy()
    wild[:, 0] *= 10
    assert np.array_equal(run(name, z)[:, 1:], run(name, wild)[:, 1:])


@pytest.mark.parametrize("sign", [1, -1])
def test_a_lasting_shift_is_found_with_its_direction_and_noise_is_not(name: str, sign: int) -> None:
    z = noise()
    z[-24:, 3] += sign * 4.0
    score = run(name, z)
    assert (np.abs(score[:-24]) < 1.5).mean() > 0.999
    assert (sign * score[-12:, 3] > 1.5).all()


def test_missing_windows_are_never_taken_for_zero_residuals(name: str) -> None:
    """A shift with every other window missing is found all the same."""
    z = noise()
    z[-48:, 3] += 4.0
    z[-48::2, 3] = np.nan
    assert run(name, z)[-1, 3] > 1.5
