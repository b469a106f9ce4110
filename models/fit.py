"""A fitted model of one kind in one shard, as bytes: what the fitter sends to the stage."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from citybrain.errors import InvalidInput
from citybrain.models import baseline
from citybrain.models.baseline import Baseline
from citybrain.models.block import Array, Arrays, aligned, unpack
from citybrain.models.daytime import slots_of

VERSION = 1
READABLE = (1,)


class FitHead(msgspec.Struct, frozen=True, kw_only=True):
    """What a body holds. names: its sensors. since_ms, until_ms: interval of the rows."""

    version: int = VERSION
    kind: str
    step_ms: int
    names: tuple[str, ...]
    forecaster: str
    horizons_ms: tuple[int, ...]
    since_ms: int
    until_ms: int
    rows: int
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Model:
    """A body laid out for a shard's sensors. weights: the forecaster's arrays, sensor first.

    ceiling [n]: what the sensor's CUSUM reached on one row in two hundred. width [n, H]: half
    of the interval at each horizon, in scales.
    """

    head: FitHead
    digest: str
    baseline: Baseline
    ceiling: Array
    width: Array
    weights: Arrays


def digest(parts: Sequence[bytes]) -> str:
    """Content hash of a model's parts in order."""
    whole = hashlib.sha256()
    for part in parts:
        whole.update(part)
    return whole.hexdigest()[:16]


def read(parts: Sequence[bytes], names: tuple[str, ...]) -> Model:
    """The model for the sensors `names`; those it does not know have no history.

    Raises InvalidInput `format` or `version`, or `model` if parts do not belong together.
    """
    known: list[str] = []
    pieces: list[Arrays] = []
    heads: list[FitHead] = []
    for part in parts:
        head, arrays = unpack(part, FitHead)
        if head.version not in READABLE:
            raise InvalidInput("version", f"model: {head.version} is not one of {READABLE}")
        if any(len(array) != len(head.names) for array in arrays.values()):
            raise InvalidInput("model", f"model: arrays are not of {len(head.names)} sensors")
        known += head.names
        pieces.append(arrays)
        heads.append(head)
    if not heads or any(arrays.keys() != pieces[0].keys() for arrays in pieces):
        raise InvalidInput("model", f"model: {len(heads)} parts that do not belong together")
    whole = {key: np.concatenate([arrays[key] for arrays in pieces]) for key in pieces[0]}
    missing = {"mean", "scale", "visits", "ceiling", "width"} - whole.keys()
    slots = slots_of(heads[0].step_ms)
    if missing or whole["mean"].shape[1:] != (2, slots):
        raise InvalidInput("model", f"model: without {sorted(missing)}, or not {slots} slots a day")
    n = len(names)
    fresh = {k: np.zeros((n, *v.shape[1:]), v.dtype) for k, v in whole.items()}
    fresh |= baseline.empty(heads[0].step_ms, n).arrays()
    laid = aligned(whole, tuple(known), names, fresh)
    tables = {key: laid.pop(key) for key in ("mean", "scale", "visits")}
    return Model(
        heads[0],
        digest(parts),
        Baseline.of(tables, heads[0].step_ms),
        laid.pop("ceiling").astype(np.float64),
        laid.pop("width").astype(np.float64),
        {key: value.astype(np.float64) for key, value in laid.items()},
    )
