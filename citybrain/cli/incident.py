"""`citybrain incident`: report, follow and close incidents; who drives where."""

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
    from citybrain.emergency import Incident, Order, ResponderState

app = typer.Typer(no_args_is_help=True, help="Report, list, close incidents; see responders.")

IdArgument = Annotated[str, typer.Argument(metavar="ID", help="Incident id.")]


@app.command()
def add(
    kind: Annotated[str, typer.Argument(help="As emergency.toml of the pack calls it.")],
    link: Annotated[str, typer.Option(help="Road link on which it is.")] = "",
    lon: Annotated[float | None, typer.Option(min=-180, max=180, help="WGS-84 degrees.")] = None,
    lat: Annotated[float | None, typer.Option(min=-90, max=90, help="WGS-84 degrees.")] = None,
    text: Annotated[str, typer.Option(help="Where and what, in words.")] = "",
    injured: Annotated[int | None, typer.Option(min=0, help="How many, if known.")] = None,
    severity: Annotated[int, typer.Option(min=1, max=4, help="1 red to 4 blue.")] = 2,
    confidence: Annotated[float, typer.Option(min=0, max=1, help="How sure.")] = 1.0,
    person: PersonOption = None,
    city: CityOption = None,
    data: DataOption = None,
    broker: BrokerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Report an incident; the responder that arrives first is sent."""
    from citybrain.emergency import ReportIncident
    from citybrain.findings import Place

    here = connect(city, data, broker)
    place = Place(zone="", link=link, lon=lon, lat=lat)
    _give(here, ReportIncident, person, as_json, kind=kind, place=place, text=text,
          injured=injured, severity=severity, confidence=confidence, source="operator")  # fmt: skip


@app.command("list")
def list_(
    city: CityOption = None,
    data: DataOption = None,
    broker: BrokerOption = None,
    everything: Annotated[bool, typer.Option("--all", help="Also what is closed.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Incidents that are not closed, the worst and oldest first, and who is sent."""
    from citybrain.cli.output import print_json, print_table
    from citybrain.clock import shown

    here = connect(city, data, broker)
    incidents, orders, _ = _standing(here)
    found = [i for i in incidents if everything or i.state != "closed"]
    found.sort(key=lambda i: (i.state == "closed", i.severity, i.opened_ms, i.id))
    if as_json:
        print_json([{"incident": i, "orders": _of(i, orders)} for i in found])
        return
    zone = here.city.zone_info
    print_table(
        ("level", "kind", "state", f"since ({zone})", "link", "responders", "why", "id"),
        (
            (
                i.severity, i.kind, i.state, shown(i.opened_ms, zone), i.link,
                ", ".join(f"{o.responder} {o.state}" for o in _of(i, orders)), i.why, i.id,
            )
            for i in found
        ),
    )  # fmt: skip


@app.command()
def show(
    incident: IdArgument,
    city: CityOption = None,
    data: DataOption = None,
    broker: BrokerOption = None,
    as_json: JsonOption = False,
) -> None:
    """All that is known of one incident and its orders."""
    from citybrain.cli.output import print_json, print_table
    from citybrain.clock import shown
    from citybrain.errors import UsageError

    here = connect(city, data, broker)
    incidents, orders, _ = _standing(here)
    found = next((i for i in incidents if i.id == incident), None)
    if found is None:
        raise UsageError(
            f"incident: {incident!r} is not known; `citybrain incident list --all` shows all"
        )
    mine = _of(found, orders)
    if as_json:
        print_json({"incident": found, "orders": mine})
        return
    zone = here.city.zone_info
    facts: list[tuple[str, Any]] = [
        ("incident", found.id),
        ("what", f"{found.kind}, level {found.severity}, injured: {_number(found.injured)}"),
        ("where", f"{found.link}, {found.pos_m:g} m along it"),
        ("state", f"{found.state} {found.why}"),
        ("source", f"{found.source} {found.person}, confidence {found.confidence:g}"),
        ("text", found.text),
        ("opened", shown(found.opened_ms, zone)),
        ("closed", shown(found.closed_ms, zone)),
        ("generated data", "yes" if found.generated else ""),
    ]
    for order in mine:
        facts += [
            ("order", order.id),
            ("", f"{order.state}: {order.why}"),
            ("", f"sent {shown(order.sent_ms, zone)}, arrival {shown(order.eta_ms, zone)}"),
            ("", f"{order.live:.0%} of the way by live link times, {_age(order)}"),
            ("", order.degraded and f"degraded: {order.degraded}"),
        ]
    print_table(("", f"times in {zone}"), [fact for fact in facts if fact[1]])


@app.command()
def close(
    incident: IdArgument,
    reason: Annotated[str, typer.Option(help="Why.")],
    person: PersonOption = None,
    city: CityOption = None,
    data: DataOption = None,
    broker: BrokerOption = None,
    as_json: JsonOption = False,
) -> None:
    """An incident is over, or was none; who is on the way is called back."""
    from citybrain.emergency import CloseIncident

    here = connect(city, data, broker)
    _give(here, CloseIncident, person, as_json, incident=incident, reason=reason)


@app.command()
def send(
    incident: IdArgument,
    responder: Annotated[str, typer.Argument(help="Responder id.")],
    route: Annotated[str, typer.Option(help="Links with commas; without it the fastest.")] = "",
    person: PersonOption = None,
    city: CityOption = None,
    data: DataOption = None,
    broker: BrokerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Send a responder of your choice."""
    from citybrain.emergency import SendResponder

    here = connect(city, data, broker)
    links = tuple(name.strip() for name in route.split(",") if name.strip())
    _give(here, SendResponder, person, as_json, incident=incident, responder=responder,
          route=links)  # fmt: skip


@app.command()
def responders(
    city: CityOption = None,
    data: DataOption = None,
    broker: BrokerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Where responders are and what they do."""
    from citybrain.cli.output import print_json, print_table
    from citybrain.clock import shown

    here = connect(city, data, broker)
    _, _, found = _standing(here)
    found.sort(key=lambda r: r.id)
    if as_json:
        print_json(found)
        return
    zone = here.city.zone_info
    print_table(
        ("responder", "kind", "status", "link", f"heard ({zone})", "order", "degraded"),
        (
            (r.id, r.kind, r.status, r.link, shown(r.heard_ms, zone), r.order, r.degraded)
            for r in found
        ),
    )


@app.command("close-road")
def close_road(
    link: Annotated[str, typer.Argument(help="Road link.")],
    until: Annotated[str, typer.Option(help="30m, 2h, 1d from now, or a time; 0 opens it.")],
    reason: Annotated[str, typer.Option(help="Why.")] = "",
    responders_pass: Annotated[
        bool, typer.Option("--responders-pass", help="Closed to the others only.")
    ] = False,
    person: PersonOption = None,
    city: CityOption = None,
    data: DataOption = None,
    broker: BrokerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Close a road to responders' routes until a stated end, or open it again."""
    from citybrain.clock import later, wall_clock
    from citybrain.emergency import CloseRoad

    here = connect(city, data, broker)
    until_ms = 0 if until == "0" else later(until, wall_clock(), here.city.zone_info)
    _give(here, CloseRoad, person, as_json, link=link, until_ms=until_ms, reason=reason,
          responders_pass=responders_pass)  # fmt: skip


def _standing(here: Connection) -> "tuple[list[Incident], list[Order], list[ResponderState]]":
    import asyncio

    from citybrain.standing import read_emergency

    return asyncio.run(read_emergency(here.kafka, here.city.id))


def _of(incident: "Incident", orders: "list[Order]") -> "list[Order]":
    return [order for order in orders if order.id in incident.orders]


def _number(value: int | None) -> str:
    return "not known" if value is None else str(value)


def _age(order: "Order") -> str:
    if order.times_age_ms is None:
        return "the rest at free speed"
    return f"the oldest {order.times_age_ms / 1000:.0f} s old"


def _give(
    here: Connection, kind: type[Any], person: str | None, as_json: bool, /, **facts: Any
) -> None:
    """Send one command and print what came of it. Raises Refused, NoAnswer."""
    from citybrain.cli.output import print_json
    from citybrain.clock import wall_clock
    from citybrain.commands import command, demand, send_all, this_person

    order = command(kind, person or this_person(), wall_clock(), **facts)
    (result,) = send_all(here.kafka, here.city.id, [order])
    if as_json:
        print_json(result)
    demand(result)
    if not as_json:
        print(f"{result.outcome}: {result.why}" if result.why else result.outcome)
