"""The HTTP server under the HTTP source: uvicorn, with what an edge needs beside it."""

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from citybrain.edge.sources.base import SourceConfig
from citybrain.errors import SetupError

_HEAD_BYTES = 64 << 10

Certified = dict[tuple[str, int], str]
"""Address of a client -> the common name of the certificate that it has shown."""


class HttpConfig(SourceConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[sources.http]. cert_file, key_file: serve TLS. client_ca_file: take certificates that
    this authority signed instead of tokens. All times in seconds."""

    host: str = "127.0.0.1"
    port: int = 8040
    max_body_mb: float = 8
    body_timeout_s: float = 30
    retry_after_s: int = 5
    max_connections: int = 2_000
    cert_file: str = ""
    key_file: str = ""
    client_ca_file: str = ""


class Server(uvicorn.Server):
    """Leaves the signals to the agent."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Nothing: the agent stops its sources."""
        yield


def served(app: ASGIApp, config: HttpConfig, certified: Certified) -> uvicorn.Config:
    """How to serve an application; `certified` is kept up to date meanwhile.

    Raises SetupError for a certificate or key that cannot be read.
    """
    try:
        made = uvicorn.Config(
            app,
            http=_remembering(certified),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            limit_concurrency=config.max_connections,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=5,
            ssl_certfile=config.cert_file or None,
            ssl_keyfile=config.key_file or None,
            ssl_ca_certs=config.client_ca_file or None,
            ssl_cert_reqs=ssl.CERT_OPTIONAL if config.client_ca_file else ssl.CERT_NONE,
        )
        made.load()
    except (OSError, ssl.SSLError) as error:
        raise SetupError(f"sources.http: cert_file, key_file: {error}") from error
    return made


def _remembering(certified: Certified) -> type[HttpToolsProtocol]:
    class Protocol(HttpToolsProtocol):
        """Remembers who showed a certificate (the ASGI scope does not tell), and hangs up on
        a head without end, which its parser would collect."""

        _head = 0

        def data_received(self, data: bytes) -> None:
            self._head += len(data)
            super().data_received(data)
            if self._head > _HEAD_BYTES and not self.transport.is_closing():
                self.send_400_response(f"head: more than {_HEAD_BYTES} bytes")

        def on_message_begin(self) -> None:
            self._head = 0
            super().on_message_begin()

        def on_body(self, body: bytes) -> None:
            self._head = 0
            super().on_body(body)

        def on_message_complete(self) -> None:
            self._head = 0
            super().on_message_complete()

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            name = _common_name(transport.get_extra_info("ssl_object"))
            if name and self.client:
                certified[self.client] = name

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            if self.client:
                certified.pop(self.client, None)

    return Protocol


def listening(host: str, port: int) -> socket.socket:
    """A socket of this address. Raises SetupError if it cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    server = socket.socket(family)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        server.bind((host, port))
    except OSError as error:
        server.close()
        raise SetupError(f"sources.http: port: {host}:{port}: {error.strerror}") from error
    return server


def _common_name(tls: ssl.SSLObject | None) -> str:
    """The common name of the certificate that a client showed, "" for none."""
    certificate = (tls.getpeercert() if tls else None) or {}
    for part in certificate.get("subject", ()):
        for name, value in cast(tuple[tuple[str, str], ...], part):
            if name == "commonName":
                return value
    return ""
