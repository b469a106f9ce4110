"""The centre's HTTP side: a page, a snapshot, a stream of changes; commands for who has a token.

Listens on this machine alone, and answers only to names of this machine, so that a foreign
page that had its own name resolve to 127.0.0.1 (DNS rebinding) gets nothing.
"""

import gzip
import json
import mimetypes
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from citybrain.alerts import Alert
from citybrain.city import City
from citybrain.clock import Clock
from citybrain.dashboards.centre import lookups, openapi, orders
from citybrain.dashboards.centre.alert_view import AlertView
from citybrain.dashboards.centre.city_view import describe
from citybrain.dashboards.centre.desk import Desk
from citybrain.dashboards.centre.metrics import CentreMetrics
from citybrain.dashboards.centre.openapi import Endpoint
from citybrain.dashboards.centre.ring import Ring
from citybrain.dashboards.centre.series import History, Series, series
from citybrain.dashboards.centre.state import Changes, CityState
from citybrain.people import People
from citybrain.process import Health

PAGE = Path(__file__).resolve().parent.parent / "page"
HOSTS = ("127.0.0.1", "localhost")
KEEP_ALIVE_S = 15.0

_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; worker-src 'self'; style-src 'self';"
        " img-src 'self' data:; connect-src 'self'; font-src 'self'; base-uri 'none';"
        " form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}
# Some systems' tables lack these, or say text/plain, and browsers refuse such modules.
mimetypes.add_type("text/javascript", ".js")
mimetypes.add_type("text/javascript", ".mjs")


@dataclass(frozen=True, slots=True)
class Centre:
    """What the endpoints look at."""

    city: City
    state: CityState
    ring: Ring
    alerts: AlertView
    history: History
    metrics: CentreMetrics
    clock: Clock
    health: Callable[[], Health]
    desk: Desk
    people: People


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """Alerts, the newest change first."""

    alerts: list[Alert]


class _Headers:
    """Puts the security headers on every answer. Pure ASGI: streams pass unbuffered."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = {name.lower() for name, _ in message["headers"]}
                message["headers"] = [
                    *message["headers"],
                    *(
                        (name.lower().encode(), value.encode())
                        for name, value in _HEADERS.items()
                        if name.lower().encode() not in given
                    ),
                ]
            await send(message)

        await self._app(scope, receive, with_headers)


def application(centre: Centre, hosts: tuple[str, ...] = HOSTS) -> Starlette:
    """The ASGI application. hosts: names under which the page may be asked for."""
    about = _json(describe(centre.city))

    def index(request: Request) -> Response:
        return FileResponse(PAGE / "index.html")

    def city(request: Request) -> Response:
        return _compressed(request, about)

    async def state(request: Request) -> Response:
        snapshot = centre.state.snapshot(centre.clock())
        body = {"event": centre.ring.last_id, **msgspec.structs.asdict(snapshot)}
        return _compressed(request, _json(body))

    async def events(request: Request) -> Response:
        asked = request.headers.get("last-event-id") or request.query_params.get("after")
        return StreamingResponse(
            event_stream(centre, asked),
            media_type="text/event-stream",
            headers={"X-Accel-Buffering": "no", "Cache-Control": "no-store"},
        )

    async def one_series(request: Request) -> Response:
        query = request.query_params
        found = await series(
            centre.city, centre.state.frames, centre.history, centre.clock(),
            sensor=query.get("sensor", ""), kind=query.get("kind", ""),
            window=query.get("window", ""), hours=query.get("hours", ""),
        )  # fmt: skip
        return _compressed(request, _json(found))

    async def alerts(request: Request) -> Response:
        query = request.query_params
        found = centre.alerts.find(
            active={"": None, "true": True, "false": False}[
                _one_of(query, "active", "true", "false")
            ],
            severity=_whole(query, "severity", None, 1, 4),
            zone=query.get("zone"),
            before_ms=_whole(query, "before_ms", None, 0, 2**53),
            limit=_whole(query, "limit", 100, 1, 1000) or 100,
        )
        return _compressed(request, _json({"alerts": found}))

    async def health(request: Request) -> Response:
        now = centre.health()
        return Response(
            _json(now), 200 if now.ok else 503, media_type="application/json; charset=utf-8"
        )

    async def alert(request: Request) -> Response:
        wanted = request.path_params["alert"]
        found = centre.state.alert(wanted)
        if found is None:
            raise HTTPException(404, f"alert: {wanted[:100]!r} is not known, or ended long ago")
        return _compressed(request, _json(found))

    async def links(request: Request) -> Response:
        zone = _one_of(request.query_params, "zone", *centre.city.zones)
        return _compressed(request, _json(lookups.roads(centre.state, zone)))

    async def stations(request: Request) -> Response:
        zone = _one_of(request.query_params, "zone", *centre.city.zones)
        kind = _one_of(request.query_params, "kind", *centre.city.kinds)
        return _compressed(request, _json(lookups.stations(centre.state, zone, kind)))

    async def rules(request: Request) -> Response:
        return _compressed(request, _json(lookups.rules(centre.city, centre.state)))

    async def described(request: Request) -> Response:
        return _compressed(request, description)

    give, result = orders.endpoints(centre.desk, centre.people)
    wrong, unknown = {400: "A parameter is wrong."}, {404: "Not known."}
    zones = {"zone": {"type": "string", "enum": sorted(centre.city.zones)}}
    kinds = {"kind": {"type": "string", "enum": sorted(centre.city.kinds)}}
    whole = {"type": "integer", "minimum": 0}
    table = [
        Endpoint("/api/city", "Names, zones, kinds with units, sensors, roads as GeoJSON.", city),
        Endpoint("/api/state", "Everything now, with the id of the last event.", state, Changes),
        Endpoint("/api/events", "Server-sent events: changes since the snapshot.", events,
                 query={"after": {"type": "string"}}),
        Endpoint("/api/alerts", "Alerts, newest change first.", alerts, Found, {
            "active": {"type": "boolean"},
            "severity": {"type": "integer", "minimum": 1, "maximum": 4},
            **zones, "before_ms": whole, "limit": whole | {"minimum": 1, "maximum": 1000},
        }, wrong),
        Endpoint("/api/alerts/{alert:path}", "One alert.", alert, Alert, {}, unknown),
        Endpoint("/api/links", "How roads flow.", links, lookups.Roads, zones, wrong),
        Endpoint("/api/stations", "What stations measure.", stations, lookups.Stations,
                 zones | kinds, wrong),
        Endpoint("/api/rules", "The rules as they are now.", rules, lookups.Rules),
        Endpoint("/api/series", "A series with its forecasts.", one_series, Series, {
            "sensor": {"type": "string"}, **kinds, "window": whole, "hours": whole,
        }, wrong | unknown),
        Endpoint("/api/commands/results/{command}", "What became of a command.", result,
                 orders.Told, {}, unknown | {401: "No token, or one that is not known."},
                 secured=True),
        Endpoint("/health", "Whether it makes progress.", health, Health,
                 statuses={503: "It waits for something."}),
        Endpoint("/api/openapi.json", "This description.", described),
    ]  # fmt: skip
    description = openapi.describe(table)
    return Starlette(
        routes=[
            Route("/", index),
            *(Route(end.path, end.handler) for end in table),
            Route("/api/commands/{kind}", give, methods=["POST"]),
            *(
                Mount(f"/{folder}", StaticFiles(directory=PAGE / folder, check_dir=False))
                for folder in ("app", "style", "text", "vendor")
            ),
        ],
        middleware=[
            Middleware(_Headers),
            Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False),
        ],
        exception_handlers={HTTPException: _refusal},
    )


async def event_stream(centre: Centre, asked: str | None) -> AsyncIterator[bytes]:
    """Server-sent events after `asked` (an id), or after the newest event if None."""
    number = centre.ring.number_of(asked or centre.ring.last_id)
    if number is None:
        # Another run of the server, or too long away: only the snapshot can help.
        centre.metrics.reloads.inc()
        yield b"retry: 1000\nevent: reload\ndata: {}\n\n"
        return
    centre.metrics.clients.inc()
    try:
        yield b"retry: 1000\n: " + centre.ring.id_of(number).encode() + b"\n\n"
        async for event in centre.ring.follow(number, KEEP_ALIVE_S):
            if event is None:
                yield b": still here\n\n"
            else:
                event_id = centre.ring.id_of(event.number).encode()
                yield b"id: " + event_id + b"\ndata: " + event.data + b"\n\n"
    finally:
        centre.metrics.clients.dec()


def _json(value: object) -> bytes:
    return msgspec.json.encode(value)


def _compressed(request: Request, body: bytes) -> Response:
    headers = {"Vary": "Accept-Encoding"}
    if len(body) > 2_000 and "gzip" in request.headers.get("accept-encoding", ""):
        body, headers["Content-Encoding"] = gzip.compress(body, 4), "gzip"
    return Response(body, media_type="application/json; charset=utf-8", headers=headers)


def _whole(query: Any, name: str, default: int | None, low: int, high: int) -> int | None:
    text = query.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) < 17 and low <= int(text) <= high):
        raise HTTPException(400, f"{name}: {text[:40]!r}: expected a whole number, {low} to {high}")
    return int(text)


def _one_of(query: Any, name: str, *known: str) -> str:
    text: str = query.get(name, "")
    if text not in ("", *known):
        raise HTTPException(400, f"{name}: {text[:40]!r}: expected one of {', '.join(known)}")
    return text


async def _refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    body = json.dumps({"error": error.detail}, ensure_ascii=False)
    return Response(body, error.status_code, media_type="application/json; charset=utf-8",
                    headers=error.headers)  # fmt: skip
