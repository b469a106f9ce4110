"""`citybrain dead-letter`: input that was refused, why, and its way back."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from citybrain.cli.connection import (
    BrokerOption,
    CityOption,
    DataOption,
    JsonOption,
    PersonOption,
    connect,
)

if TYPE_CHECKING:
    from citybrain.findings import DeadLetter

app = typer.Typer(no_args_is_help=True, help="List, show, retry refused input.")

StepOption = Annotated[str, typer.Option("--step", help="Only what this step has refused.")]
ReasonOption = Annotated[str, typer.Option("--reason", help="Only what was refused for this.")]


@app.command("list")
def list_(
    step: StepOption = "",
    reason: ReasonOption = "",
    each: Annotated[bool, typer.Option("--each", help="One line a letter, not counts.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="So many letters at most, the newest.")] = 100,
    city: CityOption = None,
    data: DataOption = None,
    broker: BrokerOption = None,
    as_json: JsonOption = False,
) -> None:
    """How many letters there are by step and reason; with --each, the letters."""
    import asyncio

    from citybrain.cli.output import print_json, print_table
    from citybrain.clock import shown
    from citybrain.dead_letters import by, letters, tally

    here = connect(city, data, broker)
    found = asyncio.run(letters(here.kafka, here.city.id, by((), reason, step), bodies=False))
    counts = tally(found)
    newest = found[-limit:]
    if as_json:
        print_json({"counts": counts, "letters": newest if each else []})
        return
    zone = here.city.zone_info
    if each:
        print_table(
            ("id", f"when ({zone})", "step", "reason", "readings", "retried", "message"),
            (
                (
                    letter.id, shown(letter.at_ms, zone), letter.step, letter.reason,
                    letter.readings, letter.retried_by, letter.message,
                )
                for letter in newest
            ),
        )  # fmt: skip
        return
    print_table(
        ("step", "reason", "letters", "readings", "retried", "example"),
        ((c.step, c.reason, c.letters, c.readings, c.retried, c.example) for c in counts),
    )


@app.command()
def show(
    letter: Annotated[str, typer.Argument(metavar="ID", help="Id of the letter.")],
    raw: Annotated[
        bool, typer.Option("--raw", help="The original bytes on stdout, nothing else.")
    ] = False,
    city: CityOption = None,
    data: DataOption = None,
    broker: BrokerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Why something was refused, and what it says as far as it can be read."""
    import asyncio

    from citybrain.cli.output import print_json, print_table
    from citybrain.clock import shown
    from citybrain.dead_letters import EDGE, by, letters
    from citybrain.errors import UsageError
    from citybrain.legible import legible

    here = connect(city, data, broker)
    found = asyncio.run(letters(here.kafka, here.city.id, by((letter,))))
    if not found:
        raise UsageError(f"letter: {letter!r} is not known; `citybrain dead-letter list --each`")
    (one,) = found
    if raw:
        sys.stdout.buffer.write(one.original)
        return
    form, text = legible(one.original)
    if as_json:
        print_json({"letter": one, "form": form, "text": text})
        return
    zone = here.city.zone_info
    back = f"{one.retry_topic}/{one.retry_partition}" if one.retry_topic else "to no topic"
    back = "to its edge agent, if that would take it now" if one.step == EDGE else back
    facts = [
        ("id", one.id),
        ("when", f"{shown(one.at_ms, zone)} ({zone})"),
        ("step", one.step),
        ("reason", one.reason),
        ("message", one.message),
        ("gateway", one.gateway),
        ("sensor", one.sensor),
        ("readings", one.readings),
        ("goes back", back),
        ("retried", f"{one.retried_by}, {shown(one.retried_ms, zone)}" if one.retried_ms else ""),
        ("original", f"{len(one.original)} bytes, {form}"),
    ]
    print_table(("", ""), [fact for fact in facts if fact[1] not in ("", None)])
    print(text)


@app.command()
def retry(
    ids: Annotated[
        list[str] | None, typer.Argument(metavar="[ID]...", help="Ids of letters.")
    ] = None,
    reason: Annotated[
        str, typer.Option("--reason", help="All that was refused for this reason.")
    ] = "",
    step: StepOption = "",
    person: PersonOption = None,
    city: CityOption = None,
    data: DataOption = None,
    broker: BrokerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Send letters to where they came from, each once; all of them or, on an error, none."""
    import asyncio

    from citybrain import dead_letters
    from citybrain.cli.output import print_json
    from citybrain.clock import wall_clock
    from citybrain.commands import this_person
    from citybrain.edge.resend import Resend
    from citybrain.errors import UsageError

    if not ids and not reason:
        raise UsageError("retry: name letters by id or by --reason")
    here = connect(city, data, broker)
    sent = asyncio.run(
        dead_letters.retry(
            here.kafka,
            here.city.id,
            here.city.shards,
            dead_letters.by(ids or (), reason, step),
            person or this_person(),
            wall_clock(),
            Resend(here.city, here.data, wall_clock),
        )
    )
    missing = sorted(set(ids or ()) - {letter.id for letter in sent})
    if as_json:
        print_json({"retried": [_without_body(letter) for letter in sent], "not_retried": missing})
    else:
        for letter in sent:
            print(f"retried: {letter.id} ({letter.readings or 0} readings)")
    if missing:
        raise UsageError(f"not retried, since unknown or retried before: {', '.join(missing)}")


def _without_body(letter: "DeadLetter") -> "DeadLetter":
    import msgspec

    return msgspec.structs.replace(letter, original=b"")
