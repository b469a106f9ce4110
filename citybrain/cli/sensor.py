"""`citybrain sensor add|check|maintenance|list`: register, try and park sensors and gateways."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from citybrain.cli.connection import BrokerOption, CityOption, DataOption, JsonOption

if TYPE_CHECKING:
    from citybrain.city import City

app = typer.Typer(no_args_is_help=True)

SensorArgument = Annotated[str, typer.Argument(help="The sensor's id.")]


@app.command()
def add(
    sensor: Annotated[str, typer.Argument(help="A sensor: its token may send for it alone.")] = "",
    gateway: Annotated[str, typer.Option(help="Or a gateway: for all of its sensors.")] = "",
    kinds: Annotated[str, typer.Option(help="New sensor: its kinds, with semicolons.")] = "",
    zone: Annotated[str, typer.Option(help="New sensor: its zone.")] = "",
    shard: Annotated[str, typer.Option(help="New sensor: its shard; else the zone's.")] = "",
    lon: Annotated[float | None, typer.Option(help="New sensor: longitude, WGS-84.")] = None,
    lat: Annotated[float | None, typer.Option(help="New sensor: latitude, WGS-84.")] = None,
    write: Annotated[bool, typer.Option(help="Add the line to the pack's sensors.csv.")] = False,
    replace: Annotated[bool, typer.Option(help="Take back the tokens it has already.")] = False,
    city: CityOption = None,
    data: DataOption = None,
) -> None:
    """Give a gateway or a single sensor a token. It is printed this once and stored as a hash."""
    from citybrain.clock import wall_clock
    from citybrain.edge.tokens import Tokens
    from citybrain.errors import UsageError

    if bool(sensor) == (bool(gateway) and not kinds):
        raise UsageError("sensor, --gateway: expected one of them")
    folder, pack = _pack(city, data)
    if sensor and sensor not in pack.sensors:
        line = _new_line(pack, sensor, gateway, kinds, zone, shard, lon, lat)
        if not write:
            raise UsageError(
                f"sensor: {sensor!r} is not in {pack.folder / 'sensors.csv'}; add this line to it"
                f" (or run this again with --write) and restart the city's processes:\n{line}"
            )
        pack = _append(pack, line)
        typer.echo(
            f"added to {pack.folder / 'sensors.csv'}; restart the city's processes", err=True
        )
    if sensor:
        gateway = pack.sensors[sensor].gateway
    elif gateway not in {s.gateway for s in pack.sensors.values()}:
        known = sorted({s.gateway for s in pack.sensors.values()})
        raise UsageError(f"gateway: {gateway!r} is not in the pack of {pack.id}; known are {known}")
    tokens = Tokens(folder)
    if replace:
        tokens.revoke(gateway, sensor)
    token = tokens.add(gateway, sensor, wall_clock())
    typer.echo(token)
    for_whom = f"sensor {sensor} of gateway {gateway}" if sensor else f"gateway {gateway}"
    typer.echo(f"the token of {for_whom}; it cannot be shown again", err=True)


@app.command("list")
def list_(city: CityOption = None, data: DataOption = None, as_json: JsonOption = False) -> None:
    """Gateways with their sensors and how many tokens they have."""
    import json
    from collections import Counter

    from citybrain.edge.tokens import Tokens

    folder, pack = _pack(city, data)
    tokens = Counter(g.gateway for g in Tokens(folder).grants())
    sensors = Counter(s.gateway for s in pack.sensors.values())
    rows = [{"gateway": g, "sensors": n, "tokens": tokens[g]} for g, n in sorted(sensors.items())]
    if as_json:
        typer.echo(json.dumps(rows))
        return
    for row in rows:
        typer.echo(f"{row['gateway']:24} {row['sensors']:6} sensors {row['tokens']:4} tokens")


@app.command()
def revoke(
    sensor: Annotated[str, typer.Argument(help="Sensor whose tokens end.")] = "",
    gateway: Annotated[str, typer.Option(help="Or gateway.")] = "",
    city: CityOption = None,
    data: DataOption = None,
) -> None:
    """Take back the tokens of a gateway or sensor; running agents notice at once."""
    from citybrain.edge.tokens import Tokens
    from citybrain.errors import UsageError

    folder, pack = _pack(city, data)
    if bool(sensor) == bool(gateway):
        raise UsageError("sensor, --gateway: expected one of them")
    if sensor and sensor in pack.sensors:
        gateway = pack.sensors[sensor].gateway
    gone = Tokens(folder).revoke(gateway, sensor)
    if not gone:
        raise UsageError(f"{sensor or gateway}: has no token")
    typer.echo(f"{gone} token(s) taken back")


@app.command()
def maintenance(
    sensor: SensorArgument,
    until: Annotated[
        str, typer.Option(help="90m, 8h, 3d by the city's time, or a time (18:00).")
    ] = "",
    end: Annotated[bool, typer.Option("--end", help="It is back in service.")] = False,
    reason: Annotated[str, typer.Option(help="What is done to it.")] = "",
    person: Annotated[str, typer.Option(help="Who says so; else who is logged in.")] = "",
    city: CityOption = None,
    data: DataOption = None,
    broker: BrokerOption = None,
) -> None:
    """Park a sensor: what it says is stored, but raises no finding and counts as no silence."""
    from citybrain.cli.connection import connect
    from citybrain.clock import later, shown, wall_clock
    from citybrain.commands import command, demand, send_all, this_person
    from citybrain.errors import UsageError
    from citybrain.findings import SetMaintenance
    from citybrain.standing import city_time

    if bool(until) == end:
        raise UsageError("--until, --end: expected one of them")
    where = connect(city, data, broker)
    if sensor not in where.city.sensors:
        raise UsageError(f"sensor: {sensor!r} is not in the pack of {where.city.id}")
    zone = where.city.zone_info
    until_ms = 0 if end else later(until, city_time(where.kafka, where.city), zone)
    order = command(
        SetMaintenance, person or this_person(), wall_clock(),
        sensor=sensor, until_ms=until_ms, reason=reason,
    )  # fmt: skip
    demand(send_all(where.kafka, where.city.id, [order])[0])
    parked = f"in maintenance until {shown(until_ms, zone)} ({zone})"
    typer.echo(f"{sensor}: {'back in service' if end else parked}")


@app.command()
def check(
    sensor: SensorArgument,
    value: Annotated[float | None, typer.Option(help="A value to try; else one in range.")] = None,
    kind: Annotated[str, typer.Option(help="Of which kind; else the sensor's first.")] = "",
    unit: Annotated[str, typer.Option(help="Its unit, UCUM.")] = "",
    time: Annotated[str, typer.Option(help="Its time; else now.")] = "",
    city: CityOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Try a reading of a sensor without sending it, and say what each step makes of it."""
    import json

    from citybrain.edge.trial import trial
    from citybrain.errors import InvalidInput

    folder, pack = _pack(city, data)
    steps = trial(pack, folder, sensor, kind, value, unit, time)
    if as_json:
        typer.echo(json.dumps([{"step": s.name, "ok": s.ok, "text": s.text} for s in steps]))
    else:
        for step in steps:
            typer.echo(f"{'ok  ' if step.ok else 'FAIL'} {step.name:12} {step.text}")
    failed = [step for step in steps if not step.ok]
    if failed:
        raise InvalidInput(failed[0].name, f"{sensor}: {failed[0].name}: {failed[0].text}")


def _pack(city: str | None, data: str | None) -> "tuple[Path, City]":
    from citybrain.pack import load
    from citybrain.settings import resolve

    settings, _ = resolve({"city": city, "data": data})
    return Path(settings.data), load(settings.city)


def _new_line(
    pack: "City", sensor: str, gateway: str, kinds: str, zone: str, shard: str,
    lon: float | None, lat: float | None,
) -> str:  # fmt: skip
    """The line of sensors.csv for a new sensor; what is not known yet stands in capitals."""
    import csv
    import io

    if zone and not shard:
        there = sorted({s.shard for s in pack.sensors.values() if s.zone == zone})
        shard = there[0] if len(there) == 1 else ""
    cells: dict[str, Any] = {
        "sensor": sensor, "kinds": kinds or "KINDS", "zone": zone or "ZONE",
        "shard": shard or "SHARD", "gateway": gateway or "GATEWAY",
        "lon": "LON" if lon is None else lon, "lat": "LAT" if lat is None else lat,
    }  # fmt: skip
    with (pack.folder / "sensors.csv").open(encoding="utf-8", newline="") as file:
        columns = next(csv.reader(file))
    line = io.StringIO()
    csv.DictWriter(line, columns, restval="", lineterminator="").writerow(cells)
    return line.getvalue()


def _append(pack: "City", line: str) -> "City":
    """The pack with a line more in sensors.csv; unchanged on disk if that is not whole."""
    from citybrain.errors import CityBrainError, SetupError
    from citybrain.pack import load

    path = pack.folder / "sensors.csv"
    before = path.read_bytes()
    gap = b"" if before.endswith(b"\n") else b"\n"
    try:
        path.write_bytes(before + gap + line.encode() + b"\n")
        return load(str(pack.folder))
    except OSError as error:
        raise SetupError(f"{path}: {error.strerror}") from error
    except CityBrainError:
        path.write_bytes(before)
        raise
