"""`citybrain topics`: the topic table, and how a cluster differs from it."""

from typing import Annotated

import typer

from citybrain.cli.connection import BrokerOption, CityOption, DataOption, JsonOption, connect

app = typer.Typer(no_args_is_help=True, help="Show the topic table; compare it with a cluster.")

ReplicationOption = Annotated[
    int, typer.Option(min=0, help="Copies of each record; 0: three, or as many as there are nodes.")
]


@app.command("list")
def list_(city: CityOption = None, as_json: JsonOption = False) -> None:
    """Every topic of a city: key, partitions, retention, size."""
    from dataclasses import asdict

    from citybrain import pack
    from citybrain.cli.output import print_json, print_table
    from citybrain.settings import resolve
    from citybrain.topics import DAY_MS, MINUTE_MS, TOPICS, full_name

    of = pack.load(resolve({"city": city})[0].city)
    if as_json:
        print_json(
            [
                asdict(topic)
                | {
                    "full_name": full_name(of.id, topic.name),
                    "partitions": topic.partitions(of.partitions),
                }
                for topic in TOPICS.values()
            ]
        )
        return

    def kept(ms: int | None) -> str:
        if ms is None:
            return "latest by key"
        return f"{ms // DAY_MS} days" if ms >= DAY_MS else f"{ms // MINUTE_MS} minutes"

    print_table(
        ("topic", "key", "partitions", "kept", "largest", "what it holds"),
        (
            (
                full_name(of.id, topic.name), topic.key, topic.partitions(of.partitions),
                kept(topic.retention_ms), f"{topic.max_message_bytes >> 20} MB", topic.doc,
            )
            for topic in TOPICS.values()
        ),
    )  # fmt: skip


@app.command()
def diff(
    replication: ReplicationOption = 0,
    city: CityOption = None,
    data: DataOption = None,
    broker: BrokerOption = None,
    as_json: JsonOption = False,
) -> None:
    """What of a cluster's topics is not as the table says. Exit code 5 if anything is."""
    import asyncio

    from citybrain.cli.output import print_json, print_table
    from citybrain.errors import BrokerError
    from citybrain.topics import differences

    here = connect(city, data, broker)
    copies = replication or asyncio.run(_copies(here.kafka))
    found = asyncio.run(differences(here.kafka, here.city.id, here.city.partitions, copies))
    if as_json:
        print_json(found)
    elif found:
        print_table(
            ("topic", "what", "expected", "found"),
            ((d.topic, d.what, d.expected, d.found) for d in found),
        )
    if found:
        raise BrokerError(f"{len(found)} things of {here.city.id}'s topics differ from the table")


@app.command()
def create(
    replication: ReplicationOption = 0,
    city: CityOption = None,
    data: DataOption = None,
    broker: BrokerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Create the topics of a city that are missing; those that exist are left alone."""
    import asyncio

    from citybrain.cli.output import print_json
    from citybrain.topics import ensure

    here = connect(city, data, broker)
    copies = replication or asyncio.run(_copies(here.kafka))
    made = asyncio.run(ensure(here.kafka, here.city.id, here.city.partitions, copies))
    if as_json:
        print_json(made)
    for name in () if as_json else made:
        print(f"created: {name}")


async def _copies(kafka: object) -> int:
    from citybrain.kafka import KafkaSettings, ping

    assert isinstance(kafka, KafkaSettings)
    return min(3, len((await ping(kafka)).nodes))
