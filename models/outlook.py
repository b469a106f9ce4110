"""Forecasts of one kind in one shard: issued, compared with what came true, judged."""

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec
import numpy as np

from citybrain.errors import InvalidInput
from citybrain.kinds import HOUR, Kind
from citybrain.models.block import Array, Arrays, aligned, pack, unpack
from citybrain.models.daytime import Daytime
from citybrain.models.fit import Model
from citybrain.models.forecast import FORECASTERS, Situation, conformal, features, scoreboard
from citybrain.models.seen import Seen

_ISSUES = 24
_CONGESTED = 2.0  # scales from the baseline


def stride_ms(step_ms: int, horizon_ms: int) -> int:
    """How often a horizon is forecast: every window, but at most 24 times within itself."""
    return -(-horizon_ms // (_ISSUES * step_ms)) * step_ms


@dataclass(frozen=True, slots=True)
class Issue:
    """A forecast of all sensors [n] for one window; NaN where there is not enough history."""

    horizon_ms: int
    target_ms: int
    forecaster: str
    value: Array
    lower: Array
    upper: Array


@dataclass(frozen=True, slots=True)
class Change:
    """A horizon at which the model fell out of use or came back."""

    horizon_ms: int
    demoted: bool
    best: str
    model_error: float
    best_error: float


class _Board(msgspec.Struct):
    sums: list[list[list[float]]]
    demoted: dict[int, str] = {}
    version: int = 1


class _Head(msgspec.Struct, frozen=True):
    names: tuple[str, ...]
    target_ms: int = 0
    version: int = 1


class Outlook:
    """Blocks of its state: `now`, `board`, and one for each forecast that waits for its truth."""

    def __init__(self, kind: Kind, names: tuple[str, ...], daytime: Daytime) -> None:
        self.kind, self._names, self._daytime = kind, names, daytime
        self.horizons_ms = tuple(h for h in kind.horizons_ms if h % kind.analysed_ms == 0)
        n, h = len(names), len(self.horizons_ms)
        self._now: Arrays = features.fresh(n) | {"width": np.full((n, h), np.nan)}
        self.sums = scoreboard.fresh(h)
        self.demoted: dict[int, str] = {}
        self._waiting: dict[str, tuple[int, Arrays]] = {}
        self._dirty: set[str] = set()

    def adopt(self, model: Model) -> None:
        """A new model: its interval widths hold where none has been learnt here."""
        if model.head.horizons_ms == self.horizons_ms:
            width = self._now["width"]
            width[:] = np.where(np.isnan(width) & (model.width > 0), model.width, width)
            self._dirty.add("now")

    def take(self, seen: Seen, model: Model | None) -> tuple[list[Issue], list[Change]]:
        """Compare what was forecast for this window, then look ahead from its end."""
        if model is None or seen.usual is None:
            return [], []
        value = np.where(seen.parked, np.nan, seen.value)
        changes = self._compare(seen, value)
        features.step(self._now, (value - seen.usual.mean) / seen.usual.scale, value)
        self._dirty.add("now")
        return self._issue(seen.end_ms, model), changes

    def _compare(self, seen: Seen, value: Array) -> list[Change]:
        changes: list[Change] = []
        for h, horizon in enumerate(self.horizons_ms):
            stride = stride_ms(self.kind.analysed_ms, horizon)
            name = self._slot(horizon, stride, seen.start_ms)
            target, then = self._waiting.get(name, (-1, {}))
            if target != seen.start_ms:
                continue
            error = value - then["value"]
            inside = np.abs(error) <= then["width"] * then["scale"]
            conformal.adapt(self._now["width"][:, h], error / then["scale"])
            errors = np.abs(value - np.stack([then["model"], then["last"], then["mean"]]))
            scoreboard.add(self.sums, h, stride, then["congested"], errors, inside)
            self._dirty |= {"board", "now"}
            if seen.start_ms % max(HOUR, stride) == 0:
                changes += self._judge(h, horizon)
        return changes

    def _judge(self, h: int, horizon: int) -> list[Change]:
        before = horizon in self.demoted
        out, best, own, other = scoreboard.verdict(self.sums, h, len(self._names), before)
        if out:
            self.demoted[horizon] = best
        else:
            self.demoted.pop(horizon, None)
        return [Change(horizon, out, best, own, other)] if out != before else []

    def _issue(self, issued_ms: int, model: Model) -> list[Issue]:
        step = self.kind.analysed_ms
        due = [
            (h, horizon, stride)
            for h, horizon in enumerate(self.horizons_ms)
            for stride in [stride_ms(step, horizon)]
            if issued_ms % stride == 0
        ]
        if not due or model.head.horizons_ms != self.horizons_ms:
            return []
        usual = [model.baseline.at(issued_ms + h, self._daytime) for h in self.horizons_ms]
        mean = np.stack([expected.mean for expected in usual], axis=1)
        scale = np.stack([expected.scale for expected in usual], axis=1)
        now = Situation(self._now["last"], features.read(self._now), mean, scale)
        own = FORECASTERS[model.head.forecaster].predict(model.weights, now)
        congested = np.abs(now.features[:, 1]) >= _CONGESTED
        issues = []
        for h, horizon, stride in due:
            used = self.demoted.get(horizon, model.head.forecaster)
            value = own[:, h]
            if horizon in self.demoted:
                value = FORECASTERS[used].predict({}, now)[:, h]
            value = self._bounded(value)
            width = self._now["width"][:, h]
            half = width * scale[:, h]
            target = issued_ms + horizon
            self._waiting[self._slot(horizon, stride, target)] = (
                target,
                {
                    "value": value, "model": self._bounded(own[:, h]), "last": now.last.copy(),
                    "mean": mean[:, h], "scale": scale[:, h], "width": width.copy(),
                    "congested": congested,
                },
            )  # fmt: skip
            self._dirty.add(self._slot(horizon, stride, target))
            issues.append(
                Issue(horizon, target, used, value, self._bounded(value - half),
                      self._bounded(value + half))
            )  # fmt: skip
        return issues

    def _bounded(self, value: Array) -> Array:
        """Within what is physically possible; a total may exceed what one reading can."""
        low = self.kind.low if not self.kind.total or self.kind.low >= 0 else -np.inf
        return np.clip(value, low, np.inf if self.kind.total else self.kind.high)

    @staticmethod
    def _slot(horizon: int, stride: int, target: int) -> str:
        # Enough places that a waiting forecast is never written over before its truth.
        return f"waiting/{horizon}/{target // stride % (horizon // stride + 2)}"

    def changed(self) -> Mapping[str, bytes]:
        """Blocks that changed since the last call."""
        blocks = {}
        for name in sorted(self._dirty):
            if name == "board":
                blocks[name] = msgspec.msgpack.encode(_Board(self.sums.tolist(), self.demoted))
            elif name == "now":
                blocks[name] = pack(_Head(self._names), self._now)
            else:
                target, arrays = self._waiting[name]
                blocks[name] = pack(_Head(self._names, target), arrays)
        self._dirty.clear()
        return blocks

    def restore(self, name: str, block: bytes) -> None:
        """Take back one block. Raises InvalidInput if it cannot be read."""
        if name == "board":
            board = msgspec.msgpack.decode(block, type=_Board)
            if np.shape(board.sums) == self.sums.shape:
                self.sums, self.demoted = np.array(board.sums), board.demoted
            return
        head, arrays = unpack(block, _Head)
        if head.version != 1:
            raise InvalidInput("version", f"outlook state: {head.version} is not 1")
        n = len(self._names)
        if name == "now":
            self._now = aligned(arrays, head.names, self._names, self._now)
            return
        fresh = {key: np.full((n, *a.shape[1:]), np.nan) for key, a in arrays.items()}
        fresh["congested"] = np.zeros(n, dtype=bool)
        self._waiting[name] = (head.target_ms, aligned(arrays, head.names, self._names, fresh))
