"""MQTT source: `citybrain/<gateway>/readings`, quality of service 1.

A message holds one JSON reading or an array (or another form, if its content type says so);
`citybrain/<gateway>/backfill` is for history. It is acknowledged only when the disk has its
readings: if the agent dies before, the MQTT broker delivers it again, and the repeat is
refused as one. Who may publish under which gateway's name is for the MQTT broker's access
rules to say.
"""

import asyncio
import ssl
from contextlib import suppress
from pathlib import Path
from typing import Annotated, cast

import aiomqtt
import msgspec
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from citybrain import log
from citybrain.edge import forms
from citybrain.edge.merge import UNKNOWN, Lane
from citybrain.edge.sources.base import Context, SourceConfig
from citybrain.edge.spool import SpoolFull
from citybrain.errors import InvalidInput, SetupError
from citybrain.process import Health

_GROUP = 2_000
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
                async with self._client() as client:
                    await self._take(client)
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

    async def _take(self, client: aiomqtt.Client) -> None:
        for leaf in ("readings", "backfill"):
            await client.subscribe(f"{self._config.topic}/+/{leaf}", qos=1)
        self._waiting = ""
        self._log.info("connected", host=self._config.host, port=self._config.port)
        messages = client.messages
        async for first in messages:
            group = [first]
            while len(messages) and len(group) < _GROUP:
                group.append(await anext(messages))
            # One group after the other: acknowledgements go out in the order of arrival.
            await asyncio.gather(*(self._store(message) for message in group))
            for message in group:
                client._client.ack(message.mid, message.qos)

    async def _store(self, message: aiomqtt.Message) -> None:
        """Returns when a message's readings, or its dead letter, are on the disk."""
        self.messages += 1
        intake = self._context.intake
        _, gateway, leaf = str(message.topic).rsplit("/", 2)
        body = message.payload if isinstance(message.payload, bytes) else b""
        while True:
            try:
                if gateway not in self._context.gateways:
                    why = f"gateway: {gateway!r} (of the topic) does not belong to this agent"
                    return await intake.refuse(UNKNOWN, InvalidInput("gateway", why), body)
                lane = "backfill" if leaf == "backfill" else "live"
                with suppress(InvalidInput):  # counted, and a dead letter by now
                    await intake.take(gateway, body, _form(message), cast(Lane, lane))
                return None
            except SpoolFull:
                # Unacknowledged, the rest waits in the MQTT broker, which is the right place.
                await asyncio.sleep(1)


def _form(message: aiomqtt.Message) -> str:
    stated = getattr(message.properties, "ContentType", "") if message.properties else ""
    return stated if stated in _FORMS else forms.JSON


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
