"""HTTP source: POST /readings, answered when the disk has them; POST /signals; GET /health.

Bodies: one JSON reading or an array (application/json), one reading a line
(application/x-ndjson), or Arrow (application/vnd.apache.arrow.stream). `?lane=backfill` for
history. 202: stored; 400: unreadable; 401, 403: who are you; 408, 413, 415; 422: every
reading was refused; 429: full, with Retry-After. A gateway shows its token as a bearer, or
its client certificate, whose common name is the gateway.
"""

import asyncio
from typing import Literal, cast

import msgspec
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from citybrain import log
from citybrain.edge import forms
from citybrain.edge.merge import Lane, Outcome
from citybrain.edge.sources.base import Context
from citybrain.edge.sources.http_server import Certified, HttpConfig, Server, listening, served
from citybrain.edge.spool import SpoolFull
from citybrain.errors import InvalidInput, SetupError
from citybrain.process import Health
from citybrain.signal_log import GATEWAY, Orders

_FORMS = {
    "": forms.JSON,
    forms.JSON: forms.JSON,
    forms.NDJSON: forms.NDJSON,
    "application/jsonl": forms.NDJSON,
    forms.ARROW: forms.ARROW,
}
_DISCARD_BYTES = 256 << 20


class _Answer(Exception):
    """Ends a request early with this status."""

    def __init__(self, status: int, reason: str, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": reason, "message": message}
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


class HttpSource:
    """Serves the two routes on one socket. Raises SetupError for a port or file it cannot have."""

    pushes = True

    def __init__(self, config: HttpConfig, context: Context) -> None:
        self._config = config
        self._context = context
        self._limit = int(config.max_body_mb * (1 << 20))
        self._log = log.get("edge.http")
        self._certified: Certified = {}
        self._socket = listening(config.host, config.port)
        self.port = int(self._socket.getsockname()[1])

    def health(self) -> Health:
        """It can take readings while its socket is open."""
        return Health(ok=self._socket.fileno() >= 0, facts={"http_port": self.port})

    async def run(self, ready: asyncio.Event) -> None:
        """Serve until cancelled."""
        server = Server(served(self._application(), self._config, self._certified))
        serving = asyncio.create_task(server.serve(sockets=[self._socket]))
        self._log.info("listening", host=self._config.host, port=self.port)
        ready.set()
        try:
            await asyncio.shield(serving)
        except asyncio.CancelledError:
            server.should_exit = True
            await serving
            raise

    def _application(self) -> ASGIApp:
        """Readings come often and small: nothing stands between them and their handler."""
        routes = [
            Route("/readings", self._readings, methods=["POST"]),
            Route("/signals", self._signals, methods=["POST"]),
            Route("/health", self._health, methods=["GET"]),
        ]
        others = Starlette(routes=routes)

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["path"] == "/readings" and scope["method"] == "POST":
                answer = await self._readings(Request(scope, receive))
                await answer(scope, receive, send)
            else:
                await others(scope, receive, send)

        return application

    async def _health(self, request: Request) -> Response:
        state: Health = self._context.health()
        return _json(200 if state.ok else 503, state)

    async def _readings(self, request: Request) -> Response:
        try:
            gateway, sensor = self._who(request)
            lane = self._lane(request)
            form = self._form(request)
            hold = [0]
            try:
                body = await self._body(request, hold)
                return await self._take(gateway, sensor, lane, form, body)
            finally:
                self._context.intake.release(hold[0])
        except _Answer as answer:
            self._context.metrics.refused_requests.labels(answer.body["error"]).inc()
            await self._discard(request)
            return _json(answer.status, answer.body, answer.headers)
        except SpoolFull as error:
            wait = str(self._config.retry_after_s)
            await self._discard(request)
            return _json(429, {"error": "full", "message": str(error)}, {"Retry-After": wait})

    async def _signals(self, request: Request) -> Response:
        """A report of signal controllers in, plans out. `?after=` names the last one had."""
        relay = self._context.relay
        try:
            gateway, _ = self._who(request, also=GATEWAY)
            after = request.query_params.get("after", "0")
            if gateway != GATEWAY or relay is None:
                raise _Answer(403, "gateway", f"gateway {gateway!r} has no signal controllers")
            if not after.isascii() or not after.isdigit():
                raise _Answer(400, "after", f"after: {after!r} is not a number")
            hold = [0]
            try:
                return _json(200, await relay.exchange(await self._body(request, hold), int(after)))
            finally:
                self._context.intake.release(hold[0])
        except InvalidInput as error:
            self._context.metrics.refused_requests.labels(error.reason).inc()
            return _json(400, {"error": error.reason, "message": str(error)})
        except _Answer as answer:
            self._context.metrics.refused_requests.labels(answer.body["error"]).inc()
            await self._discard(request)
            return _json(answer.status, answer.body, answer.headers)
        except SpoolFull as error:
            return _json(429, {"error": "full", "message": str(error)})

    def _who(self, request: Request, also: str = "") -> tuple[str, str]:
        """Gateway and (for a device's token) sensor of the one who asks."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        certified = self._certified.get(tuple(request.client or ()))  # type: ignore[arg-type]  # (host, port)
        if scheme.lower() == "bearer":
            try:
                grant = self._context.tokens.check(token.strip())
            except SetupError as error:
                self._log.error("tokens cannot be read", why=str(error))
                raise _Answer(503, "tokens", "the agent cannot read its tokens") from error
            if grant is None:
                raise _Answer(401, "token", "this token is not known", WWW_Authenticate="Bearer")
            gateway, sensor = grant.gateway, grant.sensor
        elif certified:
            gateway, sensor = certified, ""
        else:
            raise _Answer(
                401, "token", "expected the header Authorization: Bearer TOKEN",
                WWW_Authenticate="Bearer",
            )  # fmt: skip
        if gateway != also and gateway not in self._context.gateways:
            raise _Answer(403, "gateway", f"gateway {gateway!r} does not belong to this agent")
        return gateway, sensor

    def _lane(self, request: Request) -> Lane:
        lane = request.query_params.get("lane", "live")
        if lane not in ("live", "backfill"):
            raise _Answer(400, "lane", f"lane: {lane!r}, expected live or backfill")
        return cast(Literal["live", "backfill"], lane)

    def _form(self, request: Request) -> str:
        stated = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if stated not in _FORMS:
            raise _Answer(415, "form", f"content-type: {stated!r} is not one of {sorted(_FORMS)}")
        if request.headers.get("content-encoding", "identity") != "identity":
            raise _Answer(415, "form", "content-encoding: send the body as it is")
        return _FORMS[stated]

    async def _body(self, request: Request, hold: list[int]) -> bytes:
        """A request's body; `hold` says how much memory it has reserved, to be given back."""
        stated = request.headers.get("content-length", "0")
        if stated.isdigit() and int(stated) > self._limit:
            raise self._too_large()
        parts = []
        try:
            async with asyncio.timeout(self._config.body_timeout_s):
                async for chunk in request.stream():
                    self._context.intake.reserve(len(chunk))
                    hold[0] += len(chunk)
                    if hold[0] > self._limit:
                        raise self._too_large()
                    parts.append(chunk)
        except TimeoutError as error:
            wait = f"body: not here after {self._config.body_timeout_s:g} s"
            raise _Answer(408, "timeout", wait, Connection="close") from error
        except ClientDisconnect as error:
            raise _Answer(400, "disconnect", "body: the connection ended in it") from error
        return b"".join(parts)

    def _too_large(self) -> _Answer:
        return _Answer(413, "size", f"body: more than {self._limit} bytes", Connection="close")

    async def _take(
        self, gateway: str, sensor: str, lane: Lane, form: str, body: bytes
    ) -> Response:
        try:
            outcome = await self._context.intake.take(gateway, body, form, lane, sensor)
        except InvalidInput as error:
            return _json(400, {"error": error.reason, "message": str(error)})
        refused_all = outcome.refused and not (outcome.accepted or outcome.duplicate)
        return _json(422 if refused_all else 202, outcome)

    async def _discard(self, request: Request) -> None:
        """Read on and throw away, so that a client that still sends sees the answer."""
        seen = 0
        try:
            async with asyncio.timeout(self._config.body_timeout_s):
                async for chunk in request.stream():
                    seen += len(chunk)
                    if seen > _DISCARD_BYTES:
                        return
        except (TimeoutError, ClientDisconnect, RuntimeError) as error:
            self._log.debug("rest of a body not read", why=str(error))


def _json(status: int, content: Health | Outcome | Orders | dict[str, str],
          headers: dict[str, str] | None = None) -> Response:  # fmt: skip
    return Response(msgspec.json.encode(content), status, headers, "application/json")
