"""A demand for the built-in city's network that any two people can make again: SUMO's own
randomTrips with a fixed seed, cars and people on foot."""

import subprocess
import sys
from pathlib import Path

from citybrain.edge.closed_loop import Scenario
from citybrain.edge.world.network import network_file, sumo_home
from citybrain.errors import SetupError

WALKERS_PER_VEHICLE = 0.45
_SEED = 1


def adlershof(vehicles_h: int, folder: Path, end_s: int = 3_600) -> Scenario:
    """An hour of the built-in city; its trips are written into `folder`.

    Most cars pass through, and look for another way every two minutes as people with
    navigation do. Raises SetupError if SUMO's tools do not work.
    """
    net = network_file()
    cars, walkers = folder / "cars.rou.xml", folder / "walkers.rou.xml"
    _random_trips(
        net, cars, end_s, f"--insertion-rate={vehicles_h}", "--fringe-factor=10",
        "--min-distance=800", "--allow-fringe", "--validate",
    )  # fmt: skip
    _random_trips(
        net, walkers, end_s, f"--insertion-rate={vehicles_h * WALKERS_PER_VEHICLE:.0f}",
        "--pedestrians", "--prefix=p", "--min-distance=100", "--max-distance=700",
    )  # fmt: skip
    return Scenario(
        net=net, routes=(cars, walkers), begin_s=0, end_s=end_s,
        options=("--device.rerouting.probability", "0.7", "--device.rerouting.period", "120"),
    )  # fmt: skip


def _random_trips(net: Path, out: Path, end_s: int, *options: str) -> None:
    tool = sumo_home() / "tools" / "randomTrips.py"
    done = subprocess.run(
        [sys.executable, str(tool), "-n", str(net), "-b", "0", "-e", str(end_s),
         "--seed", str(_SEED), "-o", str(out.with_suffix(".trips")), "-r", str(out), *options],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode or not out.is_file():
        raise SetupError(f"{tool}: {done.stderr.strip()[-500:] or 'wrote no routes'}")
