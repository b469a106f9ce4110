"""One rule at work on one kind in one shard: detector, episodes, and what they say."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from citybrain.models import block, episodes
from citybrain.models.block import Arrays
from citybrain.models.detectors.anomaly import Anomaly
from citybrain.models.detectors.base import Detector
from citybrain.models.fit import Model
from citybrain.models.seen import Seen

_EVIDENCE = 12


@dataclass(frozen=True, slots=True)
class Verdict:
    """A transition of one place. evidence_ms: starts of the windows that support it."""

    state: Literal["raised", "updated", "cleared"]
    place: str
    onset_ms: int
    score: float
    threshold: float
    observed: float | None
    expected: float | None
    facts: dict[str, str | float]
    evidence_ms: tuple[int, ...]


class Watch:
    """State: the detector's arrays under `d.`, the episodes' under `e.`, by place."""

    def __init__(self, detector: Detector) -> None:
        self.detector = detector
        self._own = detector.fresh()
        self._episodes = episodes.fresh(len(detector.names))

    def take(self, seen: Seen) -> list[Verdict]:
        """Look at a window that the detector takes; what began, grew or ended there."""
        scored = self.detector.score(self._own, seen)
        parked = seen.parked if len(seen.parked) == len(scored.score) else _none(scored.score)
        result = episodes.step(
            self._episodes, self.detector.limits, scored.score, seen.start_ms, seen.end_ms, parked
        )
        if not (len(result.raised) or len(result.updated) or len(result.cleared)):
            return []
        verdicts = []
        for state, rows in (
            ("cleared", result.cleared), ("raised", result.raised), ("updated", result.updated)
        ):  # fmt: skip
            for at, row in enumerate(rows):
                i = int(row)
                facts = {} if np.isnan(scored.score[i]) else scored.facts(i)
                if state == "cleared":
                    facts["reason"] = result.reason[at]
                onset = int(result.onset_ms[i])
                first = max(onset, seen.start_ms - (_EVIDENCE - 1) * seen.window_ms)
                verdicts.append(
                    Verdict(
                        state=state,  # type: ignore[arg-type]  # one of the three words above
                        place=self.detector.names[i],
                        onset_ms=onset,
                        score=_number(scored.score[i]) or 0.0,
                        threshold=self.detector.limits.raise_at,
                        observed=_number(scored.observed[i]),
                        expected=None if scored.expected is None else _number(scored.expected[i]),
                        facts=facts,
                        evidence_ms=tuple(range(first, seen.end_ms, seen.window_ms)),
                    )
                )
        return verdicts

    def prime(self, model: Model) -> None:
        """A new model takes effect before the next window."""
        if isinstance(self.detector, Anomaly):
            self.detector.prime(self._own, model)

    def arrays(self) -> Arrays:
        """The whole state."""
        own = {f"d.{name}": array for name, array in self._own.items()}
        return own | {f"e.{name}": array for name, array in self._episodes.items()}

    def restore(self, arrays: Arrays, names: tuple[str, ...]) -> None:
        """Become the state of the places `names`; places that are new start fresh."""
        now = self.detector.names
        for prefix, state in (("d.", self._own), ("e.", self._episodes)):
            stored = {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
            state.update(block.aligned(stored, names, now, state))

    def adopt(self, other: "Watch") -> None:
        """Go on from the state of the same rule under other numbers."""
        self.restore(other.arrays(), other.detector.names)


def _none(score: block.Array) -> block.Array:
    return np.zeros(len(score), dtype=bool)


def _number(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 4)
