"""The models log: what was fitted, how well it does, and what was demoted. Compacted by key."""

import msgspec

VERSION = 1


class Fit(msgspec.Struct, frozen=True, kw_only=True, tag="fit", tag_field="type"):
    """A model was fitted and sent to its shard. Key `fit/<shard>/<kind>`.

    digest: hash of the model's bytes; the same rows give the same. since_ms, until_ms: the
    interval of its rows. from_ms: start of the first window that it is used for.
    """

    version: int = VERSION
    shard: str
    kind: str
    digest: str
    forecaster: str
    since_ms: int
    until_ms: int
    from_ms: int
    rows: int
    sensors: int
    seed: int
    at_ms: int


class Score(msgspec.Struct, frozen=True, kw_only=True):
    """Mean absolute errors at one horizon, older ones forgotten by half in two days.

    regime: `calm` or `congested`: whether the sensor was near its baseline at the issue.
    weight: how many truths stand behind it. coverage: share of truths within the interval.
    """

    horizon_ms: int
    regime: str
    weight: float
    model: float
    persistence: float
    historical_average: float
    coverage: float


class Scoreboard(msgspec.Struct, frozen=True, kw_only=True, tag="scoreboard", tag_field="type"):
    """How the forecasts of a kind did against what came true. Key `scoreboard/<shard>/<kind>`.

    demoted: horizons at which a simpler forecast is used because the model fell behind.
    """

    version: int = VERSION
    shard: str
    kind: str
    digest: str
    at_ms: int
    scores: list[Score]
    demoted: list[int] = []


class Demotion(msgspec.Struct, frozen=True, kw_only=True, tag="demotion", tag_field="type"):
    """A forecaster fell behind and is out of use at a horizon from `at_ms` on, or is back.

    Key `demotion/<shard>/<kind>/<horizon_ms>`. best: what is used instead, `persistence` or
    `historical_average`; the model goes on being scored, and is back (`demoted` false) when
    it is level with the best again. Errors are mean absolute ones in the kind's unit.
    """

    version: int = VERSION
    shard: str
    kind: str
    digest: str
    horizon_ms: int
    at_ms: int
    demoted: bool
    model_error: float
    best_error: float
    best: str


class Overdue(msgspec.Struct, frozen=True, kw_only=True, tag="overdue", tag_field="type"):
    """A window came for which the model of a midnight should be there, and it was not.

    Key `overdue/<shard>/<kind>`. due_ms: that midnight; at_ms: start of the window. The model
    of before, `digest`, goes on being used. Over when a `Fit` of that midnight is there.
    """

    version: int = VERSION
    shard: str
    kind: str
    digest: str
    due_ms: int
    at_ms: int


Record = Fit | Scoreboard | Demotion | Overdue
decoder = msgspec.json.Decoder(Record)
"""Reads any record of the models log."""
