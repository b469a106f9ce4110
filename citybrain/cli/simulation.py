"""The options by which commands name a scenario of the simulator, and for how long it runs."""

from pathlib import Path
from typing import Annotated

import typer

NetOption = Annotated[
    str | None, typer.Option(help="SUMO network, or adlershof for the built-in city.")
]
RoutesOption = Annotated[str | None, typer.Option(help="Route files, comma-separated.")]
AdditionalOption = Annotated[
    str, typer.Option(help="Additional files, comma-separated; their programs count.")
]
SumocfgOption = Annotated[
    Path | None, typer.Option(help="A SUMO configuration instead of --net and --routes.")
]
SeedsOption = Annotated[int, typer.Option(min=1, help="Runs of each, with seeds 1 to N.")]
ScaleOption = Annotated[float, typer.Option(min=0.01, help="Times the demand.")]
BeginOption = Annotated[int | None, typer.Option(min=0, help="Simulated second to begin.")]
EndOption = Annotated[int | None, typer.Option(min=1, help="Simulated second to end.")]
DemandOption = Annotated[int, typer.Option(min=1, help="Vehicles an hour, for --net adlershof.")]
JobsOption = Annotated[int, typer.Option(min=1, help="Runs at a time.")]
