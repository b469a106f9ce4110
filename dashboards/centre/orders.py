"""Commands over HTTP: who may, what is asked, what became of it.

A token in the `Authorization` header is needed, which no browser adds by itself, and what a
foreign page asks for is refused whatever it carries.
"""

from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from citybrain.command_kinds import COMMAND_KINDS, WrongBody
from citybrain.dashboards.centre.desk import Desk
from citybrain.errors import BrokerError
from citybrain.findings import CommandResult
from citybrain.people import People, Person, Role

LARGEST_BODY = 64 << 10
LONGEST_WAIT_S = 30.0
WAIT_S = 10.0
RESULTS = "/api/commands/results/"


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a command. `pending`: nothing is known yet, ask again at `result`.

    id: the client's, or one that was made for it. command: the id in the logs and in history.
    at_ms: the city's time when it was decided.
    """

    id: str
    kind: str
    command: str
    outcome: str
    why: str = ""
    at_ms: int = 0
    result: str


class Refusal(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why a question or command was not taken. field, value, expected: what was wrong with it."""

    error: str
    field: str = ""
    value: str = ""
    expected: str = ""


def endpoints(
    desk: Desk, people: People
) -> tuple[Callable[[Request], Awaitable[Response]], Callable[[Request], Awaitable[Response]]]:
    """The handlers of POST /api/commands/{kind} and of GET /api/commands/results/{command}."""

    async def give(request: Request) -> Response:
        _own_page_only(request)
        person = _person(request, people, "operator")
        kind = COMMAND_KINDS.get(request.path_params["kind"])
        if kind is None:
            raise HTTPException(404, f"kind: {request.path_params['kind'][:40]!r}: expected one of"
                                f" {', '.join(COMMAND_KINDS)}")  # fmt: skip
        if not person.may(kind.role):
            raise HTTPException(403, f"{kind.name}: {person.name} is {person.role}; it takes a"
                                f" {kind.role}")  # fmt: skip
        wait_s = _wait_s(request)
        body = await _body(request)
        try:
            own_id, facts = kind.read(body)
            order = desk.order(kind, own_id, facts, person.name)
        except WrongBody as wrong:
            refusal = Refusal(error=str(wrong), field=wrong.field, value=wrong.value,
                              expected=wrong.expected)  # fmt: skip
            return _json(refusal, 400)
        where = RESULTS + order.id
        try:
            result = await desk.give(order, wait_s)
        except BrokerError as error:
            refusal = Refusal(error=f"{error}; send it again with the same id, or look at {where}")
            return _json(refusal, 503, {"Retry-After": "5", "Location": where})
        told = _told(order.id, kind.name, where, result)
        if result is None:
            return _json(told, 202, {"Location": where, "Retry-After": "1"})
        return _json(told, 200 if result.outcome == "applied" else 409)

    async def result(request: Request) -> Response:
        _person(request, people, "operator")
        command = request.path_params["command"]
        known = desk.answers.get(command)
        if known is None:
            raise HTTPException(404, f"command: {command[:100]!r}: no answer is known (yet)")
        return _json(_told(command, "", RESULTS + command, known), 200)

    return give, result


def _told(command: str, kind: str, where: str, result: CommandResult | None) -> Told:
    own_id, _, _ = command.rpartition("~")
    if result is None:
        why = "no answer yet: it is in the log, and the next worker takes it"
        return Told(id=own_id, kind=kind, command=command, outcome="pending", why=why, result=where)
    why = result.why
    if result.outcome == "expired":
        why = "it reached the log too late and does nothing; send it again with a new id"
    return Told(id=own_id, kind=kind, command=command, outcome=result.outcome, why=why,
                at_ms=result.at_ms, result=where)  # fmt: skip


def _host(origin: str) -> str:
    try:
        return urlsplit(origin).netloc
    except ValueError:  # nobody's
        return ""


def _own_page_only(request: Request) -> None:
    """Refuse what another site's page has sent from this machine's browser."""
    origin = request.headers.get("origin")
    site = request.headers.get("sec-fetch-site", "none")
    foreign = origin is not None and _host(origin) != request.headers.get("host", "")
    if foreign or site not in ("same-origin", "none"):
        raise HTTPException(403, f"origin: {(origin or site)[:100]!r}: other sites' pages may give"
                            " no commands")  # fmt: skip
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise HTTPException(415, "content-type: expected application/json")


def _person(request: Request, people: People, role: Role) -> Person:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    person = people.check(token.strip()) if scheme.lower() == "bearer" else None
    if person is None or not person.may(role):
        problem = "not known" if token else "missing"
        raise HTTPException(
            401, f"authorization: token {problem}; expected `Bearer TOKEN`, see `citybrain token`",
            {"WWW-Authenticate": 'Bearer realm="citybrain"'},
        )  # fmt: skip
    return person


def _wait_s(request: Request) -> float:
    text = request.query_params.get("wait_s", str(WAIT_S))
    try:
        wait_s = float(text)
    except ValueError:
        wait_s = -1.0
    if not 0 <= wait_s <= LONGEST_WAIT_S:
        raise HTTPException(400, f"wait_s: {text[:40]!r}: expected 0 to {LONGEST_WAIT_S:.0f}")
    return wait_s


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > LARGEST_BODY:
            raise HTTPException(413, f"body: larger than {LARGEST_BODY} bytes")
    return bytes(body)


def _json(told: msgspec.Struct, status: int, headers: dict[str, str] | None = None) -> Response:
    media = "application/json; charset=utf-8"
    return Response(msgspec.json.encode(told), status, headers, media)
