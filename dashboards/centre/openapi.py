"""What programs may ask of the centre, as OpenAPI 3.1: made of the tables that serve it."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from citybrain import __version__
from citybrain.command_kinds import COMMAND_KINDS
from citybrain.dashboards.centre.orders import LONGEST_WAIT_S, WAIT_S, Refusal, Told

Handler = Callable[[Request], Response] | Callable[[Request], Awaitable[Response]]

_BODY = "application/json"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One GET. answer: the form of its JSON, None for what is no JSON.

    query: name -> its JSON schema; those in the path are found in it. statuses: others than 200.
    """

    path: str
    doc: str
    handler: Handler
    answer: Any = None
    query: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    statuses: Mapping[int, str] = field(default_factory=dict)
    secured: bool = False


_COMMAND_STATUSES = {
    200: ("Applied.", Told),
    202: ("In the log; no answer yet. Ask at `result`.", Told),
    400: ("A field is wrong: which, its value, what was expected.", Refusal),
    401: ("No token, or one that is not known.", Refusal),
    403: ("The token's role may not, or another site's page has asked.", Refusal),
    409: ("Refused by whoever decides, with why; or expired: it did nothing.", Told),
    413: ("The body is too large.", Refusal),
    415: ("The body is not said to be JSON.", Refusal),
    503: ("The broker is away, with why.", Refusal),
}


def describe(endpoints: Iterable[Endpoint]) -> bytes:
    """The OpenAPI document of the endpoints and of every kind of command."""
    endpoints = list(endpoints)
    bodies = {kind.name: kind.body for kind in COMMAND_KINDS.values()}
    forms = [Told, Refusal, *bodies.values(), *(e.answer for e in endpoints if e.answer)]
    schemas, components = msgspec.json.schema_components(
        forms, ref_template="#/components/schemas/{name}"
    )
    of = dict(zip(map(str, forms), schemas, strict=True))

    def said(doc: str, form: Any) -> dict[str, Any]:
        return {"description": doc} | (
            {"content": {_BODY: {"schema": of[str(form)]}}} if form else {}
        )

    paths: dict[str, Any] = {}
    for end in endpoints:
        statuses = {"200": said(end.doc, end.answer)}
        statuses |= {str(code): said(doc, Refusal) for code, doc in end.statuses.items()}
        paths[end.path.replace(":path}", "}")] = {
            "get": {"summary": end.doc, "parameters": _parameters(end), "responses": statuses}
            | ({"security": [{"token": []}]} if end.secured else {})
        }
    for kind in COMMAND_KINDS.values():
        paths[f"/api/commands/{kind.name}"] = {
            "post": {
                "summary": kind.doc,
                "description": f"Takes the role {kind.role}.",
                "security": [{"token": []}],
                "parameters": [
                    _parameter("wait_s", "query", {"type": "number", "minimum": 0,
                               "maximum": LONGEST_WAIT_S, "default": WAIT_S}),
                ],
                "requestBody": {
                    "required": True, "content": {_BODY: {"schema": of[str(kind.body)]}},
                },
                "responses": {
                    str(code): said(doc, form) for code, (doc, form) in _COMMAND_STATUSES.items()
                },
            }
        }  # fmt: skip
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {"title": "citybrain operations centre", "version": __version__},
            "paths": paths,
            "components": {
                "schemas": components,
                "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            },
        }
    )


def _parameters(end: Endpoint) -> list[dict[str, Any]]:
    steps = [step for step in end.path.split("/") if step.startswith("{")]
    names = [step.strip("{}").partition(":")[0] for step in steps]
    return [_parameter(name, "path", {"type": "string"}) for name in names] + [
        _parameter(name, "query", schema) for name, schema in end.query.items()
    ]


def _parameter(name: str, where: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": where, "required": where == "path", "schema": schema}
