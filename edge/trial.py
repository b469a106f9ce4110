"""A dry run of one reading through the door of an edge agent: nothing is stored or sent."""

from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from citybrain.city import City
from citybrain.clock import Clock, wall_clock
from citybrain.edge import fates, forms
from citybrain.edge.fates import FATES
from citybrain.edge.tokens import Tokens
from citybrain.edge.validate import Tolerance, Validator
from citybrain.errors import InvalidInput
from citybrain.process import living


@dataclass(frozen=True, slots=True)
class Step:
    """One step on a reading's way, and what it says."""

    name: str
    ok: bool
    text: str


def trial(
    city: City,
    data: Path,
    sensor: str,
    kind: str = "",
    value: float | None = None,
    unit: str = "",
    time: str = "",
    clock: Clock = wall_clock,
) -> list[Step]:
    """What pack, token, form, validation and agent say of a reading."""
    known = city.sensors.get(sensor)
    if known is None:
        return [Step("pack", False, f"sensor {sensor!r} is not in {city.folder / 'sensors.csv'}")]
    steps = [
        Step("pack", True, f"gateway {known.gateway}, shard {known.shard}, zone {known.zone},"
                           f" kinds {', '.join(known.kinds)}")
    ]  # fmt: skip
    grants = [
        g for g in Tokens(data).grants() if g.gateway == known.gateway and g.sensor in ("", sensor)
    ]
    how = f"`citybrain sensor add --gateway {known.gateway}` gives one"
    text = f"{len(grants)} token(s) may send for it" if grants else f"no token; {how}"
    steps.append(Step("token", bool(grants), text))
    kind = kind or known.kinds[0]
    row = city.kinds.get(kind)
    if value is None and row is not None:
        value = (row.low + row.high) / 2
    now = clock()
    reading = {"sensor": sensor, "kind": kind, "time": time or now, "value": value or 0.0,
               "unit": unit}  # fmt: skip
    validator = Validator(city, Tolerance())
    try:
        rows = forms.parse(msgspec.json.encode(reading), forms.JSON, validator.layout)
    except InvalidInput as error:
        return [*steps, Step("form", False, str(error))]
    gateway = np.array([validator.layout.gateways[known.gateway]], np.int32)
    fate, snapped = validator.judge(rows, gateway, now)
    if fate[0] == fates.ACCEPTED:
        unit = validator.layout.units[rows.kind[0]]
        text = f"{kind} {value:g} would enter as {snapped[0]:.12g} {unit}"
    else:
        why = validator.explain(rows.row(0), int(fate[0]), known.gateway, now)
        text = f"{FATES[fate[0]]}: {why}"
    steps.append(Step("validation", bool(fate[0] == fates.ACCEPTED), text))
    agents = [run for run in living(data) if run.process.startswith("edge-")]
    ports = ", ".join(f"{run.process} (127.0.0.1:{run.port})" for run in agents)
    steps.append(Step("agent", bool(agents), ports or f"no edge agent runs on {data}"))
    return steps
