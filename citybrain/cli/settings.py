"""`citybrain settings`: where each setting's value comes from."""

from pathlib import Path
from typing import Annotated

import typer

from citybrain.cli.connection import BrokerOption, CityOption, DataOption, JsonOption


def settings(
    file: Annotated[
        Path | None, typer.Option(help="Settings file (TOML); else CITYBRAIN_SETTINGS names it.")
    ] = None,
    city: CityOption = None,
    data: DataOption = None,
    broker: BrokerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Each setting, its value, and where that comes from. Secrets are never shown."""
    import msgspec

    from citybrain.cli.output import print_json, print_table
    from citybrain.settings import SECRET, resolve

    found, sources = resolve({"city": city, "data": data, "broker": broker}, file=file)
    values = msgspec.structs.asdict(found)
    shown = {key: "********" if key in SECRET and v else v for key, v in values.items()}
    if as_json:
        print_json(
            {
                key: {"value": value, "from": sources[key].where, "name": sources[key].name}
                for key, value in shown.items()
            }
        )
        return
    print_table(
        ("setting", "value", "from", ""),
        ((key, str(v), sources[key].where, sources[key].name) for key, v in shown.items()),
    )
