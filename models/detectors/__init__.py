"""What a pack's rule may look for. A new detector is a file and a line in `DETECTORS`.

A detector turns one window of a kind into scores of places (sensors, gateways, links);
`episodes` turns the scores into findings. `create` returns None where a rule does not apply
to a kind (a threshold on a one-minute total where stations report hourly).
"""

from citybrain.errors import PackError
from citybrain.kinds import Kind
from citybrain.models.detectors import air_quality, anomaly, congestion, health, rain, threshold
from citybrain.models.detectors.base import Axis, Create, Detector
from citybrain.rules import Rule

DETECTORS: dict[str, Create] = {
    "threshold": threshold.create,
    "anomaly": anomaly.create,
    "health": health.create,
    "congestion": congestion.create,
    "air_quality": air_quality.create,
    "rain": rain.create,
}


def create(rule: Rule, kind: Kind, axis: Axis) -> Detector | None:
    """The detector of a rule for one kind. Raises PackError for a name that is not there."""
    try:
        make = DETECTORS[rule.detector]
    except KeyError:
        raise PackError(
            f"rules.toml: [{rule.name}]: detector: {rule.detector!r} is not one of"
            f" {sorted(DETECTORS)}"
        ) from None
    return make(rule, kind, axis)
