"""The kinds of commands: what each must say, who may give it, and in which log it is decided.

One row a kind, for the HTTP API, its description and whoever else takes commands as JSON.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any

import msgspec

from citybrain.emergency import (
    CloseIncident,
    CloseRoad,
    ReportIncident,
    SendResponder,
    SetStatus,
)
from citybrain.errors import JSON_ERRORS, UsageError
from citybrain.findings import (
    Acknowledge,
    Assign,
    CommandBase,
    SetMaintenance,
    SetThreshold,
    Shelve,
)
from citybrain.people import Role

LONGEST_TEXT = 1_000
_ID = r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,63}$(?!\n)"
_Text = Annotated[str, msgspec.Meta(max_length=LONGEST_TEXT)]
_Id = Annotated[str, msgspec.Meta(pattern=_ID, description="Yours; the same id is done once.")]


class WrongBody(UsageError):
    """A command that cannot be read: which field, its value as JSON, what was expected."""

    def __init__(self, field: str, value: str, expected: str) -> None:
        super().__init__(f"{field}: {value or 'missing'}: {expected}")
        self.field, self.value, self.expected = field, value, expected


@dataclass(frozen=True)
class CommandKind:
    """One row. name: in the address; form: its record; fixed: fields that the kind decides.

    topic: the log of the stage that carries it out, which has one partition; the answer comes
    in `command-results`.
    """

    name: str
    form: type[CommandBase]
    doc: str
    role: Role = "operator"
    topic: str = "findings"
    fixed: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def body(self) -> type[msgspec.Struct]:
        """What a client says: the form without what the server knows, and an id if it likes."""
        base = set(CommandBase.__struct_fields__)
        fields: list[Any] = [("id", _Id | msgspec.UnsetType, msgspec.UNSET)]
        for told in msgspec.structs.fields(self.form):
            if told.name in base or told.name in self.fixed:
                continue
            kind = _Text if told.type is str else told.type
            fields.append((told.name, kind) if told.required else (told.name, kind, _default(told)))
        name = "".join(word.title() for word in self.name.split("-"))
        return msgspec.defstruct(
            name, fields, kw_only=True, frozen=True, forbid_unknown_fields=True,
            namespace={"__doc__": self.doc},
        )  # fmt: skip

    def read(self, body: bytes) -> tuple[str, dict[str, Any]]:
        """The client's id ("" for none) and the facts of a body. Raises WrongBody."""
        try:
            raw = msgspec.json.decode(body)
        except JSON_ERRORS as error:
            raise WrongBody("body", _shown(body[:60].decode("utf-8", "replace")),
                            f"expected a JSON object: {error}") from error  # fmt: skip
        try:
            told = msgspec.convert(raw, self.body)
        except msgspec.ValidationError as error:
            raise _wrong(str(error), raw) from error
        facts = {name: getattr(told, name) for name in told.__struct_fields__}
        own = facts.pop("id")
        return "" if own is msgspec.UNSET else own, facts | dict(self.fixed)

    def order(
        self, own_id: str, facts: Mapping[str, Any], person: str, now_ms: int, lasts_ms: int
    ) -> CommandBase:
        """The command. The same id, person and facts give the same command, whoever sends it
        how often; the same id with other facts is another command.
        """
        told = msgspec.json.encode([self.name, own_id, person, sorted(facts.items())])
        digest = hashlib.sha256(told).hexdigest()
        return self.form(
            id=f"{own_id}~{digest[:16]}",
            person=person,
            issued_ms=now_ms,
            expires_ms=now_ms + lasts_ms,
            **facts,
        )


COMMAND_KINDS: dict[str, CommandKind] = {
    kind.name: kind
    for kind in (
        CommandKind("acknowledge", Acknowledge, "Somebody has seen an alert, for everybody."),
        CommandKind("assign", Assign, 'The alert is this person\'s to deal with; "" for nobody.'),
        CommandKind("shelve", Shelve, "Out of the way until an event time, for a reason."),
        CommandKind("unshelve", Shelve, "Back from the shelf.",
                    fixed={"until_ms": 0, "reason": ""}),
        CommandKind("set-rule", SetThreshold, "Change a field of a rule while it works.",
                    role="supervisor"),
        CommandKind("set-maintenance", SetMaintenance, "Park a sensor until an event time.",
                    role="supervisor"),
        CommandKind("end-maintenance", SetMaintenance, "The sensor is back in service.",
                    role="supervisor", fixed={"until_ms": 0}),
        CommandKind("report-incident", ReportIncident, "Report an incident; somebody is sent.",
                    topic="emergency", fixed={"source": "api"}),
        CommandKind("close-incident", CloseIncident, "It is over, or was none.",
                    topic="emergency"),
        CommandKind("close-road", CloseRoad, "Responders do not drive there; until_ms 0 opens.",
                    topic="emergency"),
        CommandKind("send-responder", SendResponder, "Send a responder of your choice.",
                    topic="emergency"),
        CommandKind("set-status", SetStatus, "What a responder's crew does now.",
                    topic="emergency"),
    )
}  # fmt: skip


def _default(told: Any) -> Any:
    if told.default is not msgspec.NODEFAULT:
        return told.default
    return msgspec.field(default_factory=told.default_factory)


def topic_of(order: CommandBase) -> str:
    """The log in which a command is decided."""
    return next(
        (kind.topic for kind in COMMAND_KINDS.values() if isinstance(order, kind.form)), "findings"
    )


_EXPECTED = re.compile(r"(?P<expected>.*?)(?: - at `\$(?P<path>[^`]*)`)?$", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(?P<field>[^`]+)`")
_UNKNOWN = re.compile(r"Object contains unknown field `(?P<field>[^`]+)`")


def _wrong(message: str, body: Any) -> WrongBody:
    """msgspec's complaint as field, value and what was expected."""
    found = _EXPECTED.match(message)
    expected, path = (found["expected"], found["path"] or "") if found else (message, "")
    where = path.lstrip(".")
    value = _at(body, re.findall(r"[^.\[\]]+", path))
    if missing := _MISSING.match(expected):
        return WrongBody(_joined(where, missing["field"]), "", "expected, but not in the body")
    if unknown := _UNKNOWN.match(expected):
        return WrongBody(_joined(where, unknown["field"]), _shown(_at(value, [unknown["field"]])),
                         "not a field of this command")  # fmt: skip
    return WrongBody(where or "body", _shown(value), expected[:1].lower() + expected[1:])


def _joined(*parts: str) -> str:
    return ".".join(part for part in parts if part)


def _at(value: Any, path: Iterable[str]) -> Any:
    for step in path:
        if isinstance(value, list) and step.isdecimal() and int(step) < len(value):
            value = value[int(step)]
        elif isinstance(value, dict):
            value = value.get(step)
    return value


def _shown(value: Any) -> str:
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= 80 else text[:77] + "..."
