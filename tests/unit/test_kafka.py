"""Kafka settings: what is wrong is named, no password is shown, every client gets the same."""

import inspect
import socket
import ssl
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient

from citybrain import kafka
from citybrain.errors import BrokerError, UsageError
from citybrain.kafka import KafkaSettings, kafka_settings
from citybrain.settings import Settings

SASL: dict[str, Any] = {
    "security_protocol": "SASL_SSL",
    "sasl_mechanism": "SCRAM-SHA-512",
    "sasl_username": "city",
    "sasl_password": "hunter2",
}


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"bootstrap": ""}, "broker: ''"),
        ({"bootstrap": "kafka"}, "broker: 'kafka'"),
        ({"bootstrap": "a:9092, b"}, "broker: 'b'"),
        ({"bootstrap": "a:99999"}, "broker: 'a:99999'"),
        ({"security_protocol": "TLS"}, "security: 'TLS'"),
        ({"sasl_mechanism": "MAGIC"}, "sasl_mechanism: 'MAGIC'"),
        ({"sasl_password": "hunter2"}, "sasl_password: given, but security is PLAINTEXT"),
        ({"security_protocol": "SASL_SSL"}, "sasl_mechanism: missing"),
        (SASL | {"sasl_password": ""}, "sasl_password: missing"),
        ({"ssl_cafile": "ca.pem"}, "ca_file: given"),
        ({"security_protocol": "SSL", "ssl_cafile": "/no/ca.pem"}, "ca_file: /no/ca.pem"),
    ],
)
def test_a_wrong_setting_is_named_and_no_password_is(wrong: dict[str, Any], field: str) -> None:
    with pytest.raises(UsageError) as refused:
        KafkaSettings(**({"bootstrap": "a:9092"} | wrong))
    assert str(refused.value).startswith(field)
    assert "hunter2" not in str(refused.value)


def test_the_password_is_not_shown() -> None:
    settings = KafkaSettings("a:9092", **SASL)
    broker = kafka.faust_broker(settings)
    assert "hunter2" not in f"{settings!r} {settings} {broker!r}"
    assert broker.arguments["password"] == "hunter2"


def test_process_settings_become_kafka_settings() -> None:
    assert kafka_settings(Settings(broker="a:1,b:2")).servers == ["a:1", "b:2"]
    with pytest.raises(UsageError, match="broker: not given"):
        kafka_settings(Settings())
    with pytest.raises(UsageError, match="security: 'TLS'"):
        kafka_settings(Settings(broker="a:1", security="TLS"))


@pytest.mark.parametrize(
    ("arguments", "client"),
    [
        (kafka.producer_arguments, AIOKafkaProducer),
        (kafka.consumer_arguments, AIOKafkaConsumer),
        (kafka.admin_arguments, AIOKafkaAdminClient),
    ],
)
def test_the_library_knows_every_argument(arguments: Any, client: Any) -> None:
    given = arguments(KafkaSettings("a:9092", **SASL), "test")
    assert set(given) <= set(inspect.signature(client).parameters)
    assert isinstance(given["ssl_context"], ssl.SSLContext)
    assert given["sasl_plain_password"] == "hunter2"
    assert given["client_id"] == "test"


def test_what_is_written_is_written_once_and_what_is_read_is_committed() -> None:
    settings = KafkaSettings("a:9092")
    producer = kafka.producer_arguments(settings)
    assert (producer["acks"], producer["enable_idempotence"]) == ("all", True)
    assert "transactional_id" not in producer
    fenced = kafka.producer_arguments(settings, transactional_id="rollup-3")
    assert fenced["transactional_id"] == "rollup-3"
    consumer = kafka.consumer_arguments(settings, group_id="g", from_start=False)
    assert consumer["isolation_level"] == "read_committed"
    assert consumer["enable_auto_commit"] is False
    assert consumer["auto_offset_reset"] == "latest"


def test_faust_is_told_the_same() -> None:
    plain = kafka.faust_broker(KafkaSettings("a:1,b:2"))
    assert (plain.urls, plain.credentials) == (["kafka://a:1", "kafka://b:2"], None)
    assert kafka.faust_broker(
        KafkaSettings("a:1", security_protocol="SSL")
    ).credentials == "SSLCredentials"  # fmt: skip
    auth = pytest.importorskip("faust.auth")
    sasl = kafka.faust_broker(KafkaSettings("a:1", **SASL))
    assert sasl.credentials == "SASLCredentials"
    built = auth.SASLCredentials(**sasl.arguments)
    assert built.protocol.value == "SASL_SSL"


async def test_a_cluster_that_is_away_is_an_error_that_names_it() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: nobody answers there
        settings = KafkaSettings(f"127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(BrokerError, match=f"broker: {settings.bootstrap}"):
            await kafka.ping(settings)
        with pytest.raises(BrokerError, match=settings.bootstrap):
            await kafka.started(AIOKafkaProducer(**kafka.producer_arguments(settings)), settings)
