"""The tables of docs/signals.md: `python -m benchmarks.signal_tables SCENARIOS [--seeds N]`.

SCENARIOS is a folder with SUMO scenarios, each in a folder of its name. Beside them run the
built-in city, and networks that nobody has looked at while the controllers were made: a grid
and a spider web that SUMO's netgenerate draws, with random demand. All with the same
parameters. Ten seeds of everything take about four hours of two idle cores; --only chooses.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

from citybrain.edge import bench
from citybrain.edge.closed_loop import Scenario
from citybrain.edge.world.bench_demand import adlershof
from citybrain.edge.world.network import sumo_home

CONTROLLERS = ("fixed", "retimed", "actuated", "horizon")
CONFIGS = {
    "ingolstadt1": "ingolstadt1/ingolstadt1.sumocfg",
    "ingolstadt7": "ingolstadt7/ingolstadt7.sumocfg",
    "bologna_acosta": "bologna_acosta/run.sumocfg",
}
SCALES = {"ingolstadt7 x 1.2": ("ingolstadt7", 1.2), "ingolstadt7 x 1.5": ("ingolstadt7", 1.5)}
HELD_OUT = {
    "grid": ("--grid", "--grid.number=4", "--grid.length=220"),
    "spider": ("--spider", "--spider.arm-number=6", "--spider.circle-number=3",
               "--spider.space-radius=180"),
}  # fmt: skip
VEHICLES_H = {"grid": 2_400, "spider": 1_800}


def scenarios(folder: Path, work: Path) -> Iterator[tuple[str, Scenario]]:
    """Every scenario by name, those that are there."""
    found: dict[str, Scenario] = {}
    for name, place in CONFIGS.items():
        config = folder / place
        if not config.is_file():
            configs = sorted((folder / name).glob("*.sumocfg"))
            if not configs:
                print(f"{name}: not in {folder}", file=sys.stderr)
                continue
            config = configs[0]
        found[name] = bench.sumocfg(config)
    yield from found.items()
    for name, (base, scale) in SCALES.items():
        if base in found:
            yield name, replace(found[base], scale=scale)
    yield "adlershof", adlershof(1_800, _folder(work / "adlershof"))
    for name, options in HELD_OUT.items():
        yield name, _drawn(name, options, _folder(work / name))


def _drawn(name: str, options: tuple[str, ...], folder: Path) -> Scenario:
    """A generated network of two-lane roads with a signal at every junction, and its demand."""
    home = sumo_home()
    net, routes = folder / "net.net.xml", folder / "routes.rou.xml"
    import sumolib

    subprocess.run(
        [sumolib.checkBinary("netgenerate"), *options, "--default.lanenumber=2",
         "--turn-lanes=1", "--default-junction-type=traffic_light", "--seed=7", f"-o={net}"],
        check=True, capture_output=True,
    )  # fmt: skip
    subprocess.run(
        [sys.executable, str(home / "tools" / "randomTrips.py"), "-n", str(net), "-e", "3600",
         "--seed=7", "-o", str(folder / "trips.xml"), "-r", str(routes), "--fringe-factor=10",
         f"--insertion-rate={VEHICLES_H[name]}", "--validate"],
        check=True, capture_output=True,
    )  # fmt: skip
    return Scenario(net=net, routes=(routes,), begin_s=0, end_s=3_600)


def _folder(path: Path) -> Path:
    path.mkdir(parents=True)
    return path


def main() -> None:
    """Run what is asked for; a line of JSON a scenario on stdout, a table row each on stderr."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", default="", help="names, comma-separated")
    parser.add_argument("--controllers", default=",".join(CONTROLLERS))
    asked = parser.parse_args()
    only = [name.strip() for name in asked.only.split(",") if name.strip()]
    with tempfile.TemporaryDirectory() as work:
        for name, scenario in scenarios(asked.folder, Path(work)):
            if only and name not in only:
                continue
            seeds = range(1, asked.seeds + 1)
            found = bench.compare(scenario, asked.controllers.split(","), seeds, jobs=asked.jobs)
            rows = {controller: bench.summary(runs) for controller, runs in found.items()}
            apart = [asdict(one) for one in bench.differences(found)]
            print(json.dumps({"scenario": name, "seeds": asked.seeds, "controllers": rows,
                              "differences": apart}), flush=True)  # fmt: skip
            for controller, row in rows.items():
                print(
                    f"| {name}, {asked.seeds} | {controller} | {row['mean_delay_s']:.1f} |"
                    f" {row['p95_delay_s']:.0f} | {row['arrived']:.0f} / {row['scheduled']:.0f} |"
                    f" {row['never_inserted']:.0f} | {row['stops']:.2f} | {row['side_p95_s']:.0f} |"
                    f" {row['pedestrian_p95_s']:.0f} | {row['gridlocked']}/{asked.seeds} |",
                    file=sys.stderr,
                )  # fmt: skip


if __name__ == "__main__":
    main()
