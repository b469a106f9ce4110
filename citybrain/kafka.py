"""How every process speaks to Kafka: one set of settings, and what follows from it.

Records are written once and acknowledged by all in-sync replicas; readers see only what was
committed. This module knows aiokafka and nothing of Faust: `faust_broker` says in plain data
what `streams/app.py` has to tell it.
"""

import asyncio
import ssl
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar, get_args

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from citybrain.errors import BrokerError, UsageError
from citybrain.settings import Settings

SecurityProtocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
SaslMechanism = Literal["", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]

LARGEST_MESSAGE_BYTES = 16 << 20
"""Largest record of any topic (snapshot chunks, models), the broker's framing included."""

_FRAMING_BYTES = 4_096


@dataclass(frozen=True, slots=True)
class KafkaSettings:
    """Where the cluster is and how to sign in. The password is in no repr and no message.

    bootstrap: `host:port`, several with commas. Files are PEM.
    Raises UsageError naming the setting that is wrong.
    """

    bootstrap: str
    security_protocol: SecurityProtocol = "PLAINTEXT"
    ssl_cafile: str = ""
    ssl_certfile: str = ""
    ssl_keyfile: str = ""
    sasl_mechanism: SaslMechanism = ""
    sasl_username: str = ""
    sasl_password: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        for server in self.servers:
            host, colon, port = server.rpartition(":")
            if not (host and colon and port.isdigit() and 0 < int(port) < 65536):
                raise UsageError(f"broker: {server!r}: expected host:port, several with commas")
        if self.security_protocol not in get_args(SecurityProtocol):
            raise UsageError(
                f"security: {self.security_protocol!r} is not one of {get_args(SecurityProtocol)}"
            )
        if self.sasl_mechanism not in get_args(SaslMechanism):
            raise UsageError(
                f"sasl_mechanism: {self.sasl_mechanism!r} is not one of {get_args(SaslMechanism)}"
            )
        for name in ("sasl_mechanism", "sasl_username", "sasl_password"):
            if bool(getattr(self, name)) != self._signs_in:
                raise UsageError(
                    f"{name}: {'missing' if self._signs_in else 'given'}, but security is"
                    f" {self.security_protocol}"
                )
        files = {"ca_file": self.ssl_cafile, "cert_file": self.ssl_certfile,
                 "key_file": self.ssl_keyfile}  # fmt: skip
        for name, file in files.items():
            if file and not self._encrypts:
                raise UsageError(f"{name}: given, but security is {self.security_protocol}")
            if file and not Path(file).is_file():
                raise UsageError(f"{name}: {file}: no such file")
        if self.ssl_keyfile and not self.ssl_certfile:
            raise UsageError("cert_file: missing, but key_file is given")

    @property
    def servers(self) -> list[str]:
        """Each `host:port` on its own."""
        return [server.strip() for server in self.bootstrap.split(",")]

    @property
    def _signs_in(self) -> bool:
        return self.security_protocol.startswith("SASL")

    @property
    def _encrypts(self) -> bool:
        return self.security_protocol.endswith("SSL")

    def ssl_context(self) -> ssl.SSLContext | None:
        """The TLS context, None where the connection is not encrypted. Raises UsageError."""
        if not self._encrypts:
            return None
        try:
            context = ssl.create_default_context(cafile=self.ssl_cafile or None)
            if self.ssl_certfile:
                context.load_cert_chain(self.ssl_certfile, self.ssl_keyfile or None)
        except (ssl.SSLError, OSError) as error:
            given = f"{self.ssl_cafile} {self.ssl_certfile} {self.ssl_keyfile}".strip()
            raise UsageError(
                f"ca_file, cert_file, key_file: {given}: expected PEM files: {error}"
            ) from error
        return context


def kafka_settings(settings: Settings) -> KafkaSettings:
    """The Kafka part of a process' settings. Raises UsageError naming the setting."""
    if not settings.broker:
        raise UsageError("broker: not given; expected host:port of a Kafka cluster")
    return KafkaSettings(
        bootstrap=settings.broker,
        security_protocol=settings.security,  # type: ignore[arg-type]  # checked there
        ssl_cafile=settings.ca_file,
        ssl_certfile=settings.cert_file,
        ssl_keyfile=settings.key_file,
        sasl_mechanism=settings.sasl_mechanism,  # type: ignore[arg-type]  # checked there
        sasl_username=settings.sasl_username,
        sasl_password=settings.sasl_password,
    )


def client_arguments(settings: KafkaSettings, client_id: str = "citybrain") -> dict[str, Any]:
    """Keyword arguments that every aiokafka client takes."""
    arguments: dict[str, Any] = {
        "bootstrap_servers": settings.servers,
        "client_id": client_id,
        "security_protocol": settings.security_protocol,
        "ssl_context": settings.ssl_context(),
    }
    if settings.sasl_mechanism:
        arguments |= {
            "sasl_mechanism": settings.sasl_mechanism,
            "sasl_plain_username": settings.sasl_username,
            "sasl_plain_password": settings.sasl_password,
        }
    return arguments


def producer_arguments(
    settings: KafkaSettings,
    client_id: str = "citybrain",
    *,
    transactional_id: str | None = None,
    linger_ms: int = 0,
    max_message_bytes: int = LARGEST_MESSAGE_BYTES,
) -> dict[str, Any]:
    """Keyword arguments of AIOKafkaProducer: idempotent, acknowledged by all in-sync replicas.

    transactional_id: with it, what is sent belongs to transactions, and an older producer with
    the same id is fenced off (ProducerFenced at its next send).
    """
    arguments = client_arguments(settings, client_id) | {
        "enable_idempotence": True,
        "acks": "all",
        "linger_ms": linger_ms,
        # Our messages are batches already; one request takes several of them.
        "max_batch_size": 256 << 10,
        # Ours counts the record, the broker's limit its framing as well.
        "max_request_size": max_message_bytes - _FRAMING_BYTES,
    }
    if transactional_id is not None:
        arguments["transactional_id"] = transactional_id
    return arguments


def consumer_arguments(
    settings: KafkaSettings,
    client_id: str = "citybrain",
    *,
    group_id: str | None = None,
    from_start: bool = True,
) -> dict[str, Any]:
    """Keyword arguments of AIOKafkaConsumer: committed records only, offsets committed by hand.

    from_start: where to begin without a committed offset, at the first record or the end.
    """
    return client_arguments(settings, client_id) | {
        "group_id": group_id,
        "enable_auto_commit": False,
        "auto_offset_reset": "earliest" if from_start else "latest",
        "isolation_level": "read_committed",
        "max_partition_fetch_bytes": 4 << 20,
    }


admin_arguments = client_arguments


class _Client(Protocol):
    async def start(self) -> None: ...


_C = TypeVar("_C", bound=_Client)


async def started(client: _C, settings: KafkaSettings) -> _C:
    """The aiokafka client, started. Raises BrokerError if the cluster does not take us in.

    A client that could not start, or was not waited for, is closed again.
    """
    try:
        await client.start()
    except BaseException as error:
        await (client.close() if isinstance(client, AIOKafkaAdminClient) else client.stop())  # type: ignore[attr-defined]
        if isinstance(error, KafkaError | OSError | TimeoutError):
            raise unreachable(settings, error) from error
        raise
    return client


async def stopped(client: AIOKafkaProducer | AIOKafkaConsumer, timeout_ms: int = 5_000) -> bool:
    """Stop a client; whether everything that it had taken was delivered before.

    A producer waits for its records to be acknowledged, and for ever if the cluster is gone:
    after `timeout_ms` it is closed with what it has.
    """
    try:
        async with asyncio.timeout(timeout_ms / 1000):
            await client.stop()
        return True
    except TimeoutError:
        if isinstance(client, AIOKafkaProducer):
            await client._sender.close()
            await client.client.close()
        return False


def unreachable(settings: KafkaSettings, error: BaseException) -> BrokerError:
    """What to tell somebody whose cluster does not answer or refuses them."""
    return BrokerError(
        f"broker: {settings.bootstrap} ({settings.security_protocol}"
        + (f" as {settings.sasl_username}" if settings.sasl_username else "")
        + f") cannot be used: {error or type(error).__name__}"
    )


@dataclass(frozen=True, slots=True)
class Answer:
    """What a cluster says of itself. round_trip_ms: from connecting to its answer."""

    nodes: tuple[str, ...]
    cluster_id: str
    round_trip_ms: int


async def ping(settings: KafkaSettings, timeout_ms: int = 10_000) -> Answer:
    """Connect and ask who is there. Raises BrokerError."""
    begin = time.monotonic()
    admin = AIOKafkaAdminClient(
        **admin_arguments(settings), request_timeout_ms=max(1_000, timeout_ms)
    )
    await started(admin, settings)
    try:
        told = await admin.describe_cluster()
    except (KafkaError, OSError, TimeoutError) as error:
        raise unreachable(settings, error) from error
    finally:
        await admin.close()
    return Answer(
        tuple(sorted(f"{node['host']}:{node['port']}" for node in told["brokers"])),
        str(told.get("cluster_id") or ""),
        round((time.monotonic() - begin) * 1000),
    )


@dataclass(frozen=True, slots=True)
class FaustBroker:
    """What Faust is told: its `broker` list, and which of its credentials classes to build
    (`SSLCredentials(**arguments)`, `SASLCredentials(**arguments)`), None for no credentials.
    """

    urls: list[str]
    credentials: Literal["SSLCredentials", "SASLCredentials"] | None
    arguments: dict[str, Any] = field(default_factory=dict, repr=False)


def faust_broker(settings: KafkaSettings) -> FaustBroker:
    """The same connection in Faust's words."""
    urls = [f"kafka://{server}" for server in settings.servers]
    context = settings.ssl_context()
    if settings.sasl_mechanism:
        return FaustBroker(
            urls,
            "SASLCredentials",
            {
                "mechanism": settings.sasl_mechanism,
                "username": settings.sasl_username,
                "password": settings.sasl_password,
                "ssl_context": context,
            },
        )
    if context is not None:
        return FaustBroker(urls, "SSLCredentials", {"context": context})
    return FaustBroker(urls, None)
