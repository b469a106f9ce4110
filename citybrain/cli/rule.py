"""`citybrain rule`: what is looked for, and from which value on."""

from typing import TYPE_CHECKING, Annotated

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
    from citybrain.rules import Rule

app = typer.Typer(no_args_is_help=True, help="Show the rules; change one.")

Name = Annotated[str, typer.Argument(metavar="RULE", help="Name of the rule.")]
PackOption = Annotated[bool, typer.Option("--pack", help="As the pack says; asks no running city.")]


@app.command("list")
def list_(
    city: CityOption = None,
    data: DataOption = None,
    broker: BrokerOption = None,
    pack: PackOption = False,
    as_json: JsonOption = False,
) -> None:
    """The rules of a city, with what was changed since its pack was written."""
    from citybrain.cli.output import print_json, print_table

    rules = _rules(city, data, broker, pack)
    if as_json:
        print_json(list(rules.values()))
        return
    print_table(
        ("rule", "level", "detector", "kinds", "raises at", "clears at", "hold s", "group", ""),
        (
            (
                rule.name, rule.severity, rule.detector, _kinds(rule),
                f"{rule.raise_at:g}", "" if rule.clear_at is None else f"{rule.clear_at:g}",
                rule.hold_s, rule.group, "" if rule.enabled else "off",
            )
            for rule in rules.values()
        ),
    )  # fmt: skip


@app.command()
def show(
    name: Name,
    city: CityOption = None,
    data: DataOption = None,
    broker: BrokerOption = None,
    pack: PackOption = False,
    as_json: JsonOption = False,
) -> None:
    """One rule, and which of its numbers can be changed."""
    import msgspec

    from citybrain.cli.output import print_json, print_table
    from citybrain.errors import UsageError
    from citybrain.rules import changeable

    rules = _rules(city, data, broker, pack)
    if name not in rules:
        raise UsageError(f"rule: {name!r} is not one of {sorted(rules)}")
    if as_json:
        print_json(rules[name])
        return
    fields = changeable(rules[name])
    facts = msgspec.to_builtins(rules[name])
    for nested in ("levels", "settings"):
        prefix = "levels." if nested == "levels" else ""
        facts |= {f"{prefix}{key}": value for key, value in facts.pop(nested).items()}
    print_table(
        ("field", "value", "can be set"),
        ((field, str(v), "yes" if field in fields else "") for field, v in facts.items()),
    )


@app.command("set", context_settings={"ignore_unknown_options": True})  # VALUE may be negative
def set_(
    name: Name,
    field: Annotated[
        str,
        typer.Argument(metavar="FIELD", help="raise_at, hold_s, enabled, levels.2, ..."),
    ],
    value: Annotated[str, typer.Argument(metavar="VALUE", help="A number; true or false.")],
    person: PersonOption = None,
    city: CityOption = None,
    data: DataOption = None,
    broker: BrokerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Change a field of a rule while the city runs, for all shards at once."""
    from citybrain.cli.orders import give
    from citybrain.clock import wall_clock
    from citybrain.commands import command, this_person
    from citybrain.findings import SetThreshold

    here = connect(city, data, broker)
    who = person or this_person()
    order = command(SetThreshold, who, wall_clock(), rule=name, field=field, value=_value(value))
    give(here, [order], [f"{name}.{field} = {value}"], as_json)


def _value(text: str) -> float | bool:
    from citybrain.errors import UsageError

    if text in ("true", "false"):
        return text == "true"
    try:
        return float(text)
    except ValueError as error:
        raise UsageError(f"VALUE: {text!r}: expected a number, true or false") from error


def _kinds(rule: "Rule") -> str:
    return " ".join(rule.kinds) if len(rule.kinds) <= 3 else f"{len(rule.kinds)} kinds"


def _rules(city: str | None, data: str | None, broker: str | None, pack: bool) -> "dict[str, Rule]":
    if pack:
        from citybrain.pack import load
        from citybrain.settings import resolve

        return dict(load(resolve({"city": city})[0].city).rules)
    from citybrain.rules import adjusted
    from citybrain.standing import changed_settings

    here: Connection = connect(city, data, broker)
    return adjusted(here.city.rules, changed_settings(here.kafka, here.city))
