"""`citybrain alert`: what has to be dealt with, and who deals with it."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from citybrain.cli.connection import (
    BrokerOption,
    CityOption,
    Connection,
    DataOption,
    JsonOption,
    PersonOption,
    connect,
)

if TYPE_CHECKING:
    from citybrain.alerts import Alert

app = typer.Typer(no_args_is_help=True, help="List, acknowledge, assign, shelve alerts.")

Ids = Annotated[list[str], typer.Argument(metavar="ID...", help="Alert ids.", show_default=False)]
_LEVELS = {1: ("I", "red"), 2: ("II", "orange"), 3: ("III", "yellow"), 4: ("IV", "blue")}


@app.command("list")
def list_(
    city: CityOption = None,
    data: DataOption = None,
    broker: BrokerOption = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Also what has ended and been acknowledged.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Alerts that are active or not acknowledged, the worst and newest first."""
    from citybrain.cli.output import print_json, print_table
    from citybrain.clock import shown

    here = connect(city, data, broker)
    found = [a for a in _alerts(here) if everything or a.active or not a.acknowledged]
    found.sort(key=lambda a: (not a.active, a.severity, -a.updated_ms, a.id))
    if as_json:
        print_json(found)
        return
    zone = here.city.zone_info
    print_table(
        ("level", "state", f"since ({zone})", "observed", "assignee", "id"),
        (
            (
                " ".join(_LEVELS[a.severity]), _state(a), shown(a.opened_ms, zone),
                _observed(a), a.assignee, a.id,
            )
            for a in found
        ),
    )  # fmt: skip


@app.command()
def show(
    alert: Annotated[str, typer.Argument(metavar="ID", help="Alert id.")],
    city: CityOption = None,
    data: DataOption = None,
    broker: BrokerOption = None,
    as_json: JsonOption = False,
) -> None:
    """All that is known of one alert."""
    from citybrain.cli.output import print_json, print_table
    from citybrain.clock import shown
    from citybrain.dashboards.texts import advice
    from citybrain.errors import UsageError
    from citybrain.grouping import name_of

    here = connect(city, data, broker)
    found = next((a for a in _alerts(here) if a.id == alert), None)
    if found is None:
        raise UsageError(f"alert: {alert!r} is not known; `citybrain alert list --all` shows all")
    if as_json:
        print_json(found)
        return
    rule, zone = here.city.rules.get(found.rule), here.city.zone_info
    acknowledged = f"{found.acknowledged_by}, {shown(found.acknowledged_ms, zone)}"
    shelved = f"until {shown(found.shelved_until_ms, zone)}: {found.shelved_reason}"
    facts: list[tuple[str, Any]] = [
        ("alert", found.id),
        ("what", f"{rule.en} {rule.zh}" if rule else found.rule),
        ("level", " ".join(_LEVELS[found.severity])),
        ("state", _state(found)),
        ("cause", found.cause),
        ("place", name_of(found.place)),
        ("opened", shown(found.opened_ms, zone)),
        ("updated", f"{shown(found.updated_ms, zone)} ({found.transition})"),
        ("ended", shown(found.cleared_ms, zone)),
        ("observed", _observed(found)),
        ("expected", "" if found.expected is None else f"{found.expected:g} {found.unit}"),
        ("acknowledged", acknowledged if found.acknowledged else ""),
        ("comment", found.comment),
        ("assignee", found.assignee),
        ("shelved", shelved if found.shelved_until_ms else ""),
        ("suppressed by", found.suppressed_by),
        *(("what to do", text) for text in advice(found.advice)),
        ("pack", found.pack),
        ("generated data", "yes" if found.generated else ""),
        ("findings", f"{found.finding_count}, the newest:"),
        *(("", finding) for finding in found.findings[-10:]),
    ]
    print_table(("", f"times in {zone}"), [fact for fact in facts if fact[1]])


@app.command()
def ack(
    alerts: Ids,
    comment: Annotated[str, typer.Option(help="What the others should know.")] = "",
    person: PersonOption = None,
    city: CityOption = None,
    data: DataOption = None,
    broker: BrokerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say for everybody that you have seen alerts."""
    from citybrain.findings import Acknowledge

    here = connect(city, data, broker)
    _order(here, Acknowledge, alerts, person, as_json, comment=comment)


@app.command()
def assign(
    alerts: Ids,
    to: Annotated[str, typer.Option("--to", help='Whose it is from now on; "" gives it back.')],
    person: PersonOption = None,
    city: CityOption = None,
    data: DataOption = None,
    broker: BrokerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make alerts somebody's to deal with."""
    from citybrain.findings import Assign

    _order(connect(city, data, broker), Assign, alerts, person, as_json, assignee=to)


@app.command()
def shelve(
    alerts: Ids,
    until: Annotated[
        str,
        typer.Option(help="30m, 2h, 1d by the city's time, or a time (18:00)."),
    ],
    reason: Annotated[str, typer.Option(help="Why.")],
    person: PersonOption = None,
    city: CityOption = None,
    data: DataOption = None,
    broker: BrokerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put active alerts out of the way until a stated end, for a stated reason."""
    from citybrain.clock import later
    from citybrain.findings import Shelve
    from citybrain.standing import city_time

    here = connect(city, data, broker)
    until_ms = later(until, city_time(here.kafka, here.city), here.city.zone_info)
    _order(here, Shelve, alerts, person, as_json, until_ms=until_ms, reason=reason)


@app.command()
def unshelve(
    alerts: Ids,
    person: PersonOption = None,
    city: CityOption = None,
    data: DataOption = None,
    broker: BrokerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take alerts back from the shelf before its end."""
    from citybrain.findings import Shelve

    _order(connect(city, data, broker), Shelve, alerts, person, as_json, until_ms=0, reason="")


def _alerts(here: Connection) -> "list[Alert]":
    import asyncio

    from citybrain.standing import read_alerts

    return asyncio.run(read_alerts(here.kafka, here.city.id))


def _order(
    here: Connection,
    kind: type[Any],
    alerts: list[str],
    person: str | None,
    as_json: bool,
    **facts: Any,
) -> None:
    from citybrain.cli.orders import give
    from citybrain.clock import wall_clock
    from citybrain.commands import command, this_person

    who, now_ms = person or this_person(), wall_clock()
    orders = [command(kind, who, now_ms, alert=alert, **facts) for alert in alerts]
    give(here, orders, alerts, as_json)


def _state(alert: "Alert") -> str:
    words = ["active" if alert.active else "ended"]
    words += ["acknowledged"] if alert.acknowledged else ["not acknowledged"]
    words += ["shelved"] if alert.shelved_until_ms else []
    words += ["suppressed"] if alert.suppressed_by else []
    return ", ".join(words)


def _observed(alert: "Alert") -> str:
    return "" if alert.observed is None else f"{alert.observed:g} {alert.unit}"
