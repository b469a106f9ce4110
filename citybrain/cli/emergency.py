"""`citybrain emergency`: emergency trips, measured on a simulator."""

import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from citybrain.cli.output import print_json, print_table
from citybrain.cli.simulation import (
    AdditionalOption,
    BeginOption,
    DemandOption,
    EndOption,
    JobsOption,
    NetOption,
    RoutesOption,
    ScaleOption,
    SeedsOption,
    SumocfgOption,
)
from citybrain.errors import UsageError

app = typer.Typer(no_args_is_help=True)


@app.callback()
def _emergency() -> None:
    """Emergency trips."""


@app.command()
def bench(
    net: NetOption = None,
    routes: RoutesOption = None,
    additional: AdditionalOption = "",
    sumocfg: SumocfgOption = None,
    controller: Annotated[
        str, typer.Option(help="The city's signal controller, with and without priority.")
    ] = "horizon",
    seeds: SeedsOption = 3,
    trips: Annotated[int, typer.Option(min=1, help="Emergency trips in a run.")] = 10,
    scale: ScaleOption = 1.0,
    begin: BeginOption = None,
    end: EndOption = None,
    demand: DemandOption = 1800,
    jobs: JobsOption = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Drive emergency trips through a SUMO scenario: obeying signals, with priority, alone.

    All keep the speed limit; nobody makes room and nobody runs a red light. A trip is counted
    from when it wants to set out. Share: how much of what an empty road would save is saved.
    """
    from citybrain.edge import bench as benches
    from citybrain.edge import emergency_bench
    from citybrain.edge.emergency_bench import Drive
    from citybrain.models.signals import CONTROLLERS

    if controller not in CONTROLLERS:
        raise UsageError(f"--controller: {controller!r} is not one of {sorted(CONTROLLERS)}")
    with tempfile.TemporaryDirectory() as folder:
        scenario = benches.named(net, routes, additional, sumocfg, demand, Path(folder))
        scenario = benches.lasting(scenario, begin, end, scale)

        def tell(drive: Drive) -> None:
            mean = sum(drive.times.values()) / max(1, len(drive.times))
            print(f"{drive.mode} seed {drive.seed}: {mean:.1f} s a trip, others"
                  f" {drive.others_s:.1f} s", file=sys.stderr)  # fmt: skip

        result = emergency_bench.bench(
            scenario, controller, range(1, seeds + 1), trips, jobs, progress=tell
        )
    found = emergency_bench.summary(result)
    if as_json:
        print_json(found)
        return
    print_table(
        ("", "emergency trip s", "p95 s", "arrived", "others' trip s"),
        (
            ("obeys signals", found["obeys_s"], found["p95_s"]["obeys"],
             found["arrived"]["obeys"], found["others_obeys_s"]),
            ("with priority", found["priority_s"], found["p95_s"]["priority"],
             found["arrived"]["priority"], found["others_priority_s"]),
            ("empty road", found["empty_s"], "", "", ""),
        ),
    )  # fmt: skip
    share = "nothing to save" if found["share"] is None else f"{found['share']:.0%}"
    print(f"share of what an empty road saves: {share}; others {found['others_percent']:+.1f} %")
