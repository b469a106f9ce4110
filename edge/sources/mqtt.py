"""MQTT source: `citybrain/<gateway>/readings`, quality of service 1.

A message holds one JSON reading or an array (or another form, if its content type says so);
`citybrain/<gateway>/backfill` is for history. It is acknowledged only when the disk has its
readings: if the agent dies before, the MQTT broker delivers it again, and the repeat is
refused as one. Who may publish under which gateway's name is for the MQTT broker's access
rules to say.
"""

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import aiomqtt
import msgspec
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from citybrain import log
from citybrain.edge import forms, json_form
from citybrain.edge.merge import UNKNOWN, Lane
from citybrain.edge.sources.base import Context, SourceConfig
from citybrain.edge.sources.mqtt_inbox import Inbox, Published
from citybrain.edge.spool import SpoolFull
from citybrain.errors import JSON_ERRORS, InvalidInput, SetupError
from citybrain.process import Health

_GROUP = 2_000
_TOPICS = 10_000
_WEEK_S = 7 * 86_400
_FORMS = {forms.JSON, forms.NDJSON, forms.ARROW}


class MqttConfig(SourceConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[sources.mqtt]. in_flight: how many messages may wait for their acknowledgement."""

    host: str = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 1883
    topic: str = "citybrain"
    client_id: str = ""
    username: str = ""
    password_file: str = ""
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    in_flight: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 2_000


class MqttSource:
    """Subscribes for all gateways of its agent; a lost connection is made again."""

    pushes = True

    def __init__(self, config: MqttConfig, context: Context) -> None:
        self._config = config
        self._context = context
        self._log = log.get("edge.mqtt")
        self._waiting = "connecting"
        self._password = _secret(config.password_file)
        self._tls = _tls(config)
        self._topics: dict[bytes, tuple[str, Lane]] = {}
        self.messages = 0

    def health(self) -> Health:
        """It can take readings while it is connected."""
        name = f"mqtt {self._config.host}:{self._config.port}"
        waiting = f"{name}: {self._waiting}" if self._waiting else ""
        return Health(ok=not waiting, waiting=waiting, facts={"mqtt_messages": self.messages})

    async def run(self, ready: asyncio.Event) -> None:
        """Take messages until cancelled."""
        # An agent is ready before its MQTT broker is: other sources need not wait for it.
        ready.set()
        tries = 0
        while True:
            try:
                client = self._client()
                # Before it connects: a session that goes on brings messages with its first bytes.
                inbox = Inbox(client._client, 2 * self._config.in_flight)
                async with client:
                    await self._take(client, inbox)
            except aiomqtt.MqttError as error:
                if not self._waiting:
                    tries = 0
                self._waiting = str(error) or type(error).__name__
                if not tries:
                    self._log.warning("mqtt broker away", why=self._waiting)
            tries += 1
            await asyncio.sleep(min(5.0, 0.2 * 2**tries))

    def _client(self) -> aiomqtt.Client:
        config = self._config
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho
        properties.SessionExpiryInterval = _WEEK_S
        properties.ReceiveMaximum = config.in_flight
        name = config.client_id or f"citybrain-edge-{self._context.folder.name}"
        client = aiomqtt.Client(
            config.host, config.port, protocol=aiomqtt.ProtocolVersion.V5, identifier=name,
            username=config.username or None, password=self._password, tls_context=self._tls,
            clean_start=False, properties=properties,
        )  # fmt: skip
        # aiomqtt has no setting for it; paho, underneath, lets us acknowledge by hand.
        client._client.manual_ack_set(True)
        return client

    async def _take(self, client: aiomqtt.Client, inbox: Inbox) -> None:
        for leaf in ("readings", "backfill"):
            await client.subscribe(f"{self._config.topic}/+/{leaf}", qos=1)
        self._waiting = ""
        self._log.info("connected", host=self._config.host, port=self._config.port)
        # Nothing comes by this way: it ends when the connection does.
        ended = asyncio.ensure_future(anext(aiter(client.messages)))
        try:
            while True:
                await _either(ended, inbox.arrived)
                # One group after the other: acknowledgements go out in the order of arrival.
                group = inbox.take(_GROUP)
                await self._store(group)
                inbox.acknowledge(group)
                self._note_unwanted(inbox)
        finally:
            ended.cancel()
            await asyncio.gather(ended, return_exceptions=True)

    async def _store(self, group: list[Published]) -> None:
        """Returns when all readings of these messages, or their dead letters, are on the disk."""
        self.messages += len(group)
        # Single readings of one gateway are judged together, the rest by itself.
        singles: dict[tuple[str, Lane], list[tuple[json_form.Reading, bytes]]] = {}
        others: list[tuple[str, Lane, Published]] = []
        for message in group:
            gateway, lane = self._sender(message.topic)
            if message.form in ("", forms.JSON) and gateway in self._context.gateways:
                try:
                    reading = json_form.one(message.payload)
                except JSON_ERRORS:
                    pass  # `intake.take` says what is wrong with it, or that it is an array
                else:
                    singles.setdefault((gateway, lane), []).append((reading, message.payload))
                    continue
            others.append((gateway, lane, message))
        await asyncio.gather(
            *(self._until_stored(self._offer, *who, said) for who, said in singles.items()),
            *(self._until_stored(self._other, *other) for other in others),
        )

    def _sender(self, topic: bytes) -> tuple[str, Lane]:
        """Gateway and lane of a topic."""
        if known := self._topics.get(topic):
            return known
        _, gateway, leaf = str(topic, "utf-8", "replace").rsplit("/", 2)
        found: tuple[str, Lane] = (gateway, "backfill" if leaf == "backfill" else "live")
        if len(self._topics) < _TOPICS:
            self._topics[topic] = found
        return found

    async def _until_stored(self, store: Callable[..., Awaitable[None]], *what: Any) -> None:
        while True:
            try:
                return await store(*what)
            except InvalidInput:
                return None  # counted, and a dead letter by now
            except SpoolFull:
                # Unacknowledged, the rest waits in the MQTT broker, which is the right place.
                await asyncio.sleep(1)

    async def _offer(
        self, gateway: str, lane: Lane, said: list[tuple[json_form.Reading, bytes]]
    ) -> None:
        readings, bodies = zip(*said, strict=True)

        def original(index: Sequence[int]) -> bytes:
            return b"\n".join(bodies[i] for i in index)

        rows = json_form.columns(readings, {}, original, self._context.intake.layout)
        await self._context.intake.offer(gateway, rows, lane, b"\n".join(bodies))

    async def _other(self, gateway: str, lane: Lane, message: Published) -> None:
        intake, body = self._context.intake, message.payload
        if gateway not in self._context.gateways:
            why = f"gateway: {gateway!r} (of the topic) does not belong to this agent"
            await intake.refuse(UNKNOWN, InvalidInput("gateway", why), body)
            return
        form = message.form if message.form in _FORMS else forms.JSON
        await intake.take(gateway, body, form, lane)

    def _note_unwanted(self, inbox: Inbox) -> None:
        if inbox.unwanted:
            self._log.warning("dropped: published with quality of service 0", n=inbox.unwanted)
            self._context.metrics.refused_requests.labels("mqtt_qos_0").inc(inbox.unwanted)
            inbox.unwanted = 0


async def _either(ended: "asyncio.Future[Any]", arrived: asyncio.Event) -> None:
    """Wait until something has arrived. Raises MqttError if the connection ends first."""
    if not arrived.is_set():
        waits = asyncio.ensure_future(arrived.wait())
        await asyncio.wait((ended, waits), return_when=asyncio.FIRST_COMPLETED)
        waits.cancel()
    if ended.done():
        ended.result()


def _secret(file: str) -> str | None:
    if not file:
        return None
    try:
        return Path(file).read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SetupError(f"sources.mqtt: password_file: {file}: {error}") from error


def _tls(config: MqttConfig) -> ssl.SSLContext | None:
    if not config.ca_file:
        return None
    try:
        context = ssl.create_default_context(cafile=config.ca_file)
        if config.cert_file:
            context.load_cert_chain(config.cert_file, config.key_file or None)
    except (OSError, ssl.SSLError) as error:
        raise SetupError(f"sources.mqtt: ca_file, cert_file, key_file: {error}") from error
    return context
