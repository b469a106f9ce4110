"""`citybrain signals`: what junctions show and why; controllers tried out on a simulator."""

import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from citybrain.cli.connection import BrokerOption, CityOption, DataOption, JsonOption
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
def _signals() -> None:
    """What junctions show and why; controllers tried out on a simulator."""


@app.command()
def bench(
    net: NetOption = None,
    routes: RoutesOption = None,
    additional: AdditionalOption = "",
    sumocfg: SumocfgOption = None,
    controller: Annotated[
        str, typer.Option(help="Controllers to compare, comma-separated.")
    ] = "fixed,retimed,actuated,horizon",
    seeds: SeedsOption = 3,
    scale: ScaleOption = 1.0,
    begin: BeginOption = None,
    end: EndOption = None,
    demand: DemandOption = 1800,
    jobs: JobsOption = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Run a SUMO scenario closed loop with each controller and compare.

    Delay is time loss plus departure delay of every scheduled vehicle; teleporting is off.
    Detector states reach our controllers 5 s old, 5 % lost, 5 % of the vehicles missed.
    shipped, actuated and delay_based are run by SUMO itself, without interlock.
    """
    from citybrain.edge import bench as benches
    from citybrain.edge.outcome import Outcome

    with tempfile.TemporaryDirectory() as folder:
        scenario = benches.named(net, routes, additional, sumocfg, demand, Path(folder))
        scenario = benches.lasting(scenario, begin, end, scale)

        def tell(outcome: Outcome) -> None:
            print(
                f"{outcome.controller} seed {outcome.seed}: {outcome.mean_delay_s:.1f} s"
                f" ({outcome.seconds:.0f} s of computing)",
                file=sys.stderr,
            )

        chosen = [name.strip() for name in controller.split(",") if name.strip()]
        outcomes = benches.compare(scenario, chosen, range(1, seeds + 1), jobs=jobs, progress=tell)
    apart = benches.differences(outcomes)
    found = {name: benches.summary(rows) for name, rows in outcomes.items()}
    if as_json:
        print_json({"controllers": found, "differences": [asdict(d) for d in apart]})
        return
    print_table(
        ["controller", "delay s", "p95 s", "arrived", "of", "never in", "stops", "side p95 s",
         "on foot p95 s", "gridlocked", "refused"],
        [
            [name, f"{row['mean_delay_s']:.1f}", f"{row['p95_delay_s']:.0f}",
             f"{row['arrived']:.0f}", f"{row['scheduled']:.0f}", f"{row['never_inserted']:.0f}",
             f"{row['stops']:.2f}", f"{row['side_p95_s']:.0f}", f"{row['pedestrian_p95_s']:.0f}",
             f"{row['gridlocked']}/{seeds}", row["refusals"]]
            for name, row in found.items()
        ],
    )  # fmt: skip
    print_table(
        ["paired difference", "to", "s", "± s (95 %)", "%"],
        [
            [d.one, d.other, f"{d.mean_s:+.1f}", f"{d.half_s:.1f}", f"{d.percent:+.1f}"]
            for d in apart
        ],
    )


@app.command()
def show(
    junction: Annotated[
        str, typer.Argument(help="Id of a junction, or its beginning; all of them without.")
    ] = "",
    city: CityOption = None,
    data: DataOption = None,
    broker: BrokerOption = None,
    as_json: JsonOption = False,
) -> None:
    """What junctions show now, who decides there, and why."""
    import asyncio

    from citybrain.cli.connection import connect
    from citybrain.clock import wall_clock
    from citybrain.signal_state import read, words

    here = connect(city, data, broker)
    known = [one for name, one in here.city.signals.items() if name.startswith(junction)]
    if not known:
        raise UsageError(f"junction: {junction!r} is none of {sorted(here.city.signals)}")
    states = asyncio.run(read(here.kafka, here.city.id, known))
    if as_json:
        print_json(states)
        return
    for state in states:
        for line in words(state, here.city.signals[state.junction], wall_clock()):
            print(line)


@app.command()
def refused(
    last: Annotated[int, typer.Option(min=1, help="So many at most, the newest.")] = 20,
    city: CityOption = None,
    data: DataOption = None,
    broker: BrokerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Plans and changes of lamps that arbiters and interlocks turned down, and why."""
    import asyncio

    from citybrain.cli.connection import connect
    from citybrain.clock import shown
    from citybrain.dead_letters import by, letters

    here = connect(city, data, broker)
    found = asyncio.run(letters(here.kafka, here.city.id, by((), step="arbiter")))[-last:]
    if as_json:
        print_json(found)
        return
    print_table(
        ["time", "rule", "what"],
        [[shown(one.at_ms, here.city.zone_info), one.reason, one.message] for one in found],
    )
