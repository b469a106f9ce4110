"""`citybrain city`: list, check and import cities."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(no_args_is_help=True, add_completion=False)

_JSON = typer.Option("--json", help="Print JSON.")


@app.command("list")
def list_cities(as_json: Annotated[bool, _JSON] = False) -> None:
    """Built-in cities, and built-in mappings for `city import`."""
    from citybrain import pack
    from citybrain.city import BUILT_IN
    from citybrain.cityimport import mapping as mappings

    rows = []
    for path in sorted(BUILT_IN.glob("*/city.toml")):
        city = pack.load(str(path.parent))
        rows.append({"city": city.id, "what": "built in", "zh": city.zh, "en": city.en})
    for path in sorted(mappings.BUILT_IN.glob("*.toml")):
        part = mappings.load(path).city
        rows.append({"city": part.id, "what": "mapping", "zh": part.zh, "en": part.en})
    if as_json:
        typer.echo(json.dumps(rows, ensure_ascii=False))
        return
    for row in rows:
        typer.echo(f"{row['city']:<12} {row['what']:<9} {row['en']}, {row['zh']}")


@app.command()
def check(
    folder: Annotated[str, typer.Argument(help="Folder of a pack, or a built-in city.")],
    net: Annotated[
        Path | None, typer.Option(help="SUMO network that the signals' tables have to fit.")
    ] = None,
    as_json: Annotated[bool, _JSON] = False,
) -> None:
    """Read a pack and say what is in it, or what is wrong with it.

    The safety tables of its signals are compared with the street network where that is known:
    the simulated world's, or the one given.
    """
    from citybrain import pack

    city = pack.load(folder)
    network = net or (_world_network() if (city.folder / "world.toml").is_file() else None)
    if network is not None and city.signals:
        from citybrain.edge import junctions

        junctions.agree(city.signals.values(), network)
    facts: dict[str, Any] = {
        "city": city.id, "version": city.version, "time_zone": str(city.zone_info),
        "generated": city.generated, "zones": len(city.zones), "shards": len(city.shards),
        "partitions": city.partitions, "sensors": len(city.sensors),
        "series": sum(len(s.kinds) for s in city.sensors.values()), "links": len(city.links),
        "junctions": len(city.signals), "signals_agree_with": network.name if network else "",
        "kinds": sorted(city.kinds), "rules": sorted(city.rules),
    }  # fmt: skip
    if as_json:
        typer.echo(json.dumps(facts, ensure_ascii=False))
        return
    for name, value in facts.items():
        shown = ", ".join(value) if isinstance(value, list) else value
        typer.echo(f"{name:<11} {shown}")


def _world_network() -> Path | None:
    """The simulated world's streets, if this machine has the simulator."""
    from citybrain.edge.world.network import network_file
    from citybrain.errors import SetupError

    try:
        return network_file()
    except SetupError as error:
        typer.echo(f"signals not compared with the streets: {error}", err=True)
        return None


@app.command("import")
def import_city(
    mapping: Annotated[str, typer.Argument(help="Mapping file, or a built-in mapping.")],
    out: Annotated[Path, typer.Option(help="Where pack/ and recording.parquet go.")],
    base: Annotated[
        Path | None, typer.Option("--from", help="Folder of the data, over the mapping's.")
    ] = None,
    as_json: Annotated[bool, _JSON] = False,
) -> None:
    """Make a pack and a recording from tables of readings."""
    from citybrain.cityimport import mapping as mappings
    from citybrain.cityimport.run import run

    got = run(mappings.find(mapping), out, base)
    if as_json:
        typer.echo(json.dumps(got.as_json(), ensure_ascii=False))
        return
    typer.echo(f"{got.readings} readings of {got.sensors} sensors: {got.recording}")
    typer.echo(f"pack: {got.pack}")
    for file, counts in got.tables.items():
        facts = {k: v for k, v in vars(counts).items() if v}
        facts["unknown_kinds"] = ", ".join(sorted(counts.unknown_kinds))
        said = ", ".join(f"{k} {v}" for k, v in facts.items() if v)
        print(f"{file}: {said}", file=sys.stderr)
