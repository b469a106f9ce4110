"""Air and noise at roadside stations: a background, and what the traffic nearby adds.

Each station is a box over its street: emissions come in, wind and mixing carry them off, rain
washes particles out (a first-order box model; Seinfeld and Pandis, Atmospheric Chemistry and
Physics, 3rd ed. 2016, ch. 25). Noise: energy sum of the edges' own levels with distance.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from citybrain.edge.world.noise import curve

Array = npt.NDArray[np.float64]
HOUR_MS = 3_600_000

BOX_HEIGHT_M = 8.0
BOX_WIDTH_M = 60.0
QUIET_DB = 43.0
# SUMO's PMx is exhaust; abrasion and resuspension add about as much again, mostly coarse.
ABRASION = 2.0
NO2_SHARE = 0.35


@dataclass(slots=True)
class Traffic:
    """What traffic put into each station's box since the last call, and how loud it was.

    nox, pm, co: mg. energy: sum of 10^(dB/10) over samples, `samples` of them.
    """

    nox: Array
    pm: Array
    co: Array
    energy: Array
    samples: int = 0

    def to_lists(self) -> list[list[float]]:
        """The arrays as plain lists, in the order of the fields."""
        return [column.tolist() for column in (self.nox, self.pm, self.co, self.energy)]

    @classmethod
    def none(cls, stations: int) -> "Traffic":
        """Nothing yet."""
        nox, pm, co, energy = np.zeros((4, stations))
        return cls(nox, pm, co, energy)


class Air:
    """The boxes' contents. lengths_m: how much street each station's box holds."""

    def __init__(self, seed: int, lengths_m: Array) -> None:
        self._seed = seed
        self._volume = np.maximum(lengths_m, 50.0) * BOX_HEIGHT_M * BOX_WIDTH_M
        self.boxes = {name: np.zeros(len(lengths_m)) for name in ("nox", "pm", "co")}

    def step(self, traffic: Traffic, seconds: float, wind: float, rain_mm_h: Array) -> None:
        """Let `seconds` pass: emissions come in, wind carries off, rain washes out."""
        carried = wind / BOX_WIDTH_M * 0.25
        for name, came in (("nox", traffic.nox), ("pm", traffic.pm), ("co", traffic.co)):
            loss = np.full_like(came, carried)
            if name == "pm":
                loss = loss + 5e-4 * rain_mm_h**0.8 / 10
            # mg a m3 -> ug a m3; exact solution for a constant inflow over the step.
            inflow = came / seconds / self._volume * 1000.0
            decay = np.exp(-loss * seconds)
            self.boxes[name] = self.boxes[name] * decay + inflow / loss * (1 - decay)

    def values(
        self, time_ms: int, hour: float, temperature: float, wind: float, rain_mm_h: Array,
        traffic: Traffic,
    ) -> dict[str, Array]:  # fmt: skip
        """Concentrations in ug/m3 and noise in dB(A), one a station."""
        slow = curve(self._seed, "stagnant", time_ms, 36 * HOUR_MS)
        stagnant = max(0.35, 1.1 + 0.6 * slow - wind / 15.0)
        heating = np.clip((14.0 - temperature) / 14.0, 0.0, 1.5)
        washed = 1.0 / (1.0 + rain_mm_h / 8.0)
        day = max(0.0, math.sin(math.pi * (hour - 6.0) / 13.0))
        sun = day * np.clip(temperature / 20.0, 0.2, 1.3)
        pm, nox, co = self.boxes["pm"], self.boxes["nox"], self.boxes["co"]
        pm25 = (8.0 + 8.0 * heating) * stagnant * washed + pm * (1 + 0.4 * ABRASION)
        pm10 = 6.0 + pm25 * 1.25 + pm * ABRASION * 0.8
        no2 = 13.0 * stagnant + NO2_SHARE * nox
        o3 = np.maximum(4.0, 32.0 + 60.0 * sun - 0.5 * no2)
        count = len(pm)
        jitter = np.array([curve(self._seed, f"air{i}", time_ms, 300_000) for i in range(count)])
        energy = traffic.energy / max(1, traffic.samples) + 10 ** (QUIET_DB / 10)
        noise = 10 * np.log10(energy) + 0.8 * rain_mm_h**0.3 + 0.5 * jitter
        vary = 1.0 + 0.04 * jitter
        return {
            "pm25": np.round(pm25 * vary, 1),
            "pm10": np.round(pm10 * vary, 1),
            "so2": np.round((2.0 + 2.0 * heating) * stagnant * vary, 1),
            "no2": np.round(no2 * vary, 1),
            "co": np.round((220.0 + 120.0 * heating) * stagnant * vary + co, 0),
            "o3": np.round(o3 * vary, 1),
            "noise_level": np.round(noise, 1),
        }
