"""One contract over every forecaster of the registry, and what the best of them must do."""

import numpy as np
import pytest

from citybrain.fits import Score
from citybrain.models.forecast import (
    FORECASTERS,
    Past,
    Situation,
    conformal,
    features,
    scoreboard,
)
from citybrain.models.forecast.network import Network

STEPS = (1, 3, 12)
T, N = 2000, 6


def residuals(seed: int = 0) -> np.ndarray:  # type: ignore[type-arg]  # tests
    """Slowly wandering residuals with a common part: what yesterday says, today says again."""
    random = np.random.default_rng(seed)
    common, own = np.zeros(T), np.zeros((T, N))
    for t in range(1, T):
        common[t] = 0.98 * common[t - 1] + random.normal(0, 0.15)
        own[t] = 0.9 * own[t - 1] + random.normal(0, 0.25, N)
    return np.clip(common[:, None] + own, -features.CLIP, features.CLIP)


def past(z: np.ndarray) -> Past:  # type: ignore[type-arg]  # tests
    return Past.of(z, np.zeros_like(z), np.ones_like(z))


def situation(z: np.ndarray, at: slice) -> Situation:  # type: ignore[type-arg]  # tests
    x = features.over(z)[at]
    shape = (len(x), z.shape[1], len(STEPS))
    return Situation(z[at], x, np.zeros(shape), np.ones(shape))


@pytest.fixture(params=sorted(FORECASTERS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_a_forecast_has_a_number_for_each_sensor_and_horizon(name: str) -> None:
    z = residuals()
    z[100:200, 2] = np.nan
    weights = FORECASTERS[name].fit(past(z), STEPS, 1)
    assert all(len(array) == N for array in weights.values())
    now = situation(np.nan_to_num(z), slice(500, 501))
    one = Situation(now.last[0], now.features[0], now.mean[0], now.scale[0])
    ahead = FORECASTERS[name].predict(weights, one)
    assert ahead.shape == (N, len(STEPS))
    assert np.isfinite(ahead).all()
    assert np.allclose(FORECASTERS[name].predict(weights, now)[0], ahead)


def test_the_same_history_teaches_the_same(name: str) -> None:
    z = residuals()
    first, second = (FORECASTERS[name].fit(past(z), STEPS, 1) for _ in range(2))
    assert first.keys() == second.keys()
    assert all(np.array_equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("rows", [0, 1, 5])
def test_next_to_no_history_is_no_crash(name: str, rows: int) -> None:
    z = residuals()[:rows]
    weights = FORECASTERS[name].fit(past(z), STEPS, 1)
    ahead = FORECASTERS[name].predict(weights, situation(residuals(), slice(0, 3)))
    assert np.isfinite(ahead).all()


def test_a_sensor_that_never_spoke_spoils_nobody_else(name: str) -> None:
    z = residuals()
    z[:, 3] = np.nan
    weights = FORECASTERS[name].fit(past(z), STEPS, 1)
    assert all(np.isfinite(array).all() for array in weights.values())


@pytest.mark.parametrize("mine", ["ridge", "network", "blend"])
def test_what_learns_beats_both_yardsticks_on_days_it_has_not_seen(mine: str) -> None:
    train, test = residuals(0), residuals(1)
    errors = {}
    for name, forecaster in FORECASTERS.items():
        weights = forecaster.fit(past(train), STEPS, 1)
        ahead = forecaster.predict(weights, situation(test, slice(0, T - 12)))
        errors[name] = [
            np.abs(ahead[:, :, h] - test[step : T - 12 + step]).mean()
            for h, step in enumerate(STEPS)
        ]
    for other in ("persistence", "historical_average"):
        assert (np.array(errors[mine]) < np.array(errors[other])).all()


def test_what_drifts_for_weeks_is_forecast_no_worse_than_by_the_last_value() -> None:
    """A walk without a usual level: the baseline says nothing, and what is now says nearly all."""
    random = np.random.default_rng(4)
    walk = np.cumsum(random.normal(0, 1, (4000, N)), axis=0) + 200
    level, wide = np.full_like(walk, walk.mean()), np.full_like(walk, walk.std() / 2)
    train, test = slice(0, 3000), slice(3000, 4000)
    blend = FORECASTERS["blend"]
    weights = blend.fit(Past.of(walk[train], level[train], wide[train]), STEPS, 1)
    now, truth = Past.of(walk[test], level[test], wide[test]).look_back(STEPS)
    mine = np.nanmean(np.abs(blend.predict(weights, now) - truth), axis=(0, 1))
    last = np.nanmean(np.abs(now.last[..., None] - truth), axis=(0, 1))
    assert (mine <= 1.02 * last).all()
    plain = np.nanmean(np.abs(Network().predict(weights, now) - truth), axis=(0, 1))
    assert (mine < plain).all()


def test_features_over_a_history_are_those_of_going_through_it_step_by_step() -> None:
    z = residuals()[:300]
    z[40:90, 1] = np.nan
    state, told = features.fresh(N), []
    for row in z:
        features.step(state, row, row)
        told.append(features.read(state))
    assert np.allclose(features.over(z), told)


def test_intervals_reach_their_promise_after_the_noise_has_tripled() -> None:
    random = np.random.default_rng(0)
    width = conformal.initial(random.normal(0, 1, (1000, 1)))
    assert width[0] == pytest.approx(1.645, rel=0.1)
    inside = []
    for _ in range(2000):
        error = random.normal(0, 3, 1)
        inside.append(abs(error[0]) <= width[0])
        conformal.adapt(width, error)
    assert np.mean(inside[200:]) == pytest.approx(conformal.COVERAGE, abs=0.02)
    before = width.copy()
    conformal.adapt(width, np.array([np.nan]))
    assert width == before


def test_a_model_is_out_when_five_percent_behind_and_back_when_level() -> None:
    def board(model: float) -> tuple[bool, str]:
        sums = scoreboard.fresh(1)
        sums[0, 0] = [100, 100 * model, 200, 100, 90]
        out, best, own, other = scoreboard.verdict(sums, 0, 1, demoted=was)
        assert (own, other) == (model, 1.0)
        return out, best

    was = False
    assert board(1.04) == (False, "historical_average")
    assert board(1.06) == (True, "historical_average")
    was = True
    assert board(1.02)[0]
    assert not board(0.99)[0]


def test_calm_and_congested_are_scored_apart() -> None:
    sums = scoreboard.fresh(1)
    errors = np.array([[1.0, 5.0], [2.0, 4.0], [3.0, 6.0]])
    congested, covered = np.array([False, True]), np.array([True, False])
    scoreboard.add(sums, 0, 60_000, congested, errors, covered)
    calm, busy = scoreboard.scores(sums, (900_000,))
    assert calm == Score(
        horizon_ms=900_000, regime="calm", weight=1.0, model=1.0, persistence=2.0,
        historical_average=3.0, coverage=1.0,
    )  # fmt: skip
    assert (busy.regime, busy.model, busy.coverage) == ("congested", 5.0, 0.0)
