"""`citybrain backup` and `citybrain restore`."""

import asyncio
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from citybrain.cli.connection import BrokerOption, CityOption, DataOption, JsonOption

if TYPE_CHECKING:
    from citybrain.history.backup import Manifest


def backup(
    out: Annotated[Path, typer.Argument(help="Folder for the backup, empty or not there yet.")],
    city: CityOption = None,
    data: DataOption = None,
    broker: BrokerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Copy a city's history, pack, device registry and compacted topics while it runs."""
    from citybrain.cli.connection import connect
    from citybrain.clock import wall_clock
    from citybrain.history import backup as backups

    where = connect(city, data, broker)
    done = asyncio.run(backups.backup(where.kafka, where.city, where.data, out, wall_clock))
    _say(done, out, as_json)


def restore(
    source: Annotated[Path, typer.Argument(help="Folder of a backup.")],
    data: DataOption = None,
    broker: BrokerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Bring a backup back into an empty data folder and a cluster that is new to the city.

    Without --broker the data folder's own Kafka is started for it, and stopped again.
    """
    from citybrain import pack
    from citybrain.broker import LocalBroker
    from citybrain.history import backup as backups
    from citybrain.kafka import kafka_settings
    from citybrain.settings import resolve

    settings, _ = resolve({"data": data, "broker": broker})
    backups.check(source)
    city, folder = pack.load(str(source / "pack")), Path(settings.data)
    if settings.broker:
        work = backups.restore(kafka_settings(settings), city, source, folder)
        done = asyncio.run(work)
    else:
        with LocalBroker(folder / "kafka") as local:
            done = asyncio.run(backups.restore(local.settings, city, source, folder))
    _say(done, folder, as_json)


def _say(done: "Manifest", where: Path, as_json: bool) -> None:
    facts: dict[str, Any] = {
        "city": done.city, "pack": done.pack, "at_ms": done.at_ms, "folder": str(where),
        "files": len(done.files), "topics": done.topics,
    }  # fmt: skip
    if as_json:
        typer.echo(json.dumps(facts))
        return
    typer.echo(str(where))
    keys = sum(done.topics.values())
    print(f"{done.city}: {len(done.files)} files, {keys} keys of topics", file=sys.stderr)
