"""The local Kafka: what is acknowledged is kept, whatever happens to the processes."""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError, MessageSizeTooLargeError, ProducerFenced

from citybrain import kafka, topics
from citybrain.broker import LocalBroker
from citybrain.errors import BrokerError, SetupError
from citybrain.kafka import KafkaSettings


async def write(settings: KafkaSettings, topic: str, values: list[bytes]) -> None:
    """Write and wait for the acknowledgement of each."""
    producer = AIOKafkaProducer(**kafka.producer_arguments(settings))
    await kafka.started(producer, settings)
    try:
        for value in values:
            await producer.send_and_wait(topic, value, key=b"k", partition=0)
    finally:
        await kafka.stopped(producer, timeout_ms=2_000)


async def read(
    settings: KafkaSettings, topic: str, count: int, wait_ms: int = 20_000
) -> list[bytes]:
    """The first `count` committed records of partition 0, fewer if that many do not come."""
    consumer = AIOKafkaConsumer(**kafka.consumer_arguments(settings))
    await kafka.started(consumer, settings)
    try:
        place = TopicPartition(topic, 0)
        consumer.assign([place])
        await consumer.seek_to_beginning(place)
        found: list[bytes] = []
        until = time.monotonic() + wait_ms / 1000
        while len(found) < count and time.monotonic() < until:
            got = await consumer.getmany(place, timeout_ms=200)
            found += [record.value for record in got.get(place, [])]
        return found
    finally:
        await consumer.stop()


async def test_what_was_acknowledged_survives_stop_and_kill(tmp_path: Path, city_id: str) -> None:
    broker = LocalBroker(tmp_path / "kafka")
    topic = topics.full_name(city_id, "findings")
    async with broker:
        first = broker.settings
        await topics.ensure(first, city_id, partitions=2)
        await write(first, topic, [b"before the stop"])
    assert broker.living == []
    async with broker:
        assert broker.settings == first, "the same port again, if it is free"
        writing = AIOKafkaProducer(**kafka.producer_arguments(first))
        await kafka.started(writing, first)
        await writing.send_and_wait(topic, b"before the kill", partition=0)
        broker.kill()
        undelivered = await writing.send(topic, b"after the kill", partition=0)
        assert not await kafka.stopped(writing, timeout_ms=500), "it would wait for ever"
        assert not undelivered.done()
        assert broker.living == []
        assert "has ended" in broker.last_words()
        broker.start_node()
        assert broker.last_words() == ""
        assert await read(first, topic, 2) == [b"before the stop", b"before the kill"]


async def test_a_broker_dies_with_its_process_and_its_data_do_not(
    tmp_path: Path, city_id: str
) -> None:
    data = tmp_path / "kafka"
    program = (
        "import sys, time; from pathlib import Path; from citybrain.broker import LocalBroker\n"
        "broker = LocalBroker(Path(sys.argv[1])); broker.start()\n"
        "print(broker.pid(), broker.settings.bootstrap, flush=True); time.sleep(600)"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", program, str(data)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert owner.stdout is not None
        pid, bootstrap = owner.stdout.readline().split()
        child = psutil.Process(int(pid))
        settings = KafkaSettings(bootstrap)
        await topics.ensure(settings, city_id, partitions=1)
        topic = topics.full_name(city_id, "findings")
        await write(settings, topic, [b"acknowledged"])

        second = LocalBroker(data)
        with pytest.raises(SetupError, match=f"is in use by process {owner.pid} .*{pid}"):
            second.start()
    finally:
        owner.send_signal(signal.SIGKILL)
        owner.wait()
    async with second:
        assert not child.is_running()
        assert await read(second.settings, topic, 1) == [b"acknowledged"]


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(SetupError, match=f"port: 127.0.0.1:{port} is taken"):
            LocalBroker(tmp_path / "kafka", port=port).start()
    with LocalBroker(tmp_path / "kafka", port=port) as broker:
        assert broker.settings.servers == [f"127.0.0.1:{port}"]


def test_it_listens_on_this_machine_only(broker: LocalBroker) -> None:
    listening = [
        link.laddr.ip
        for link in psutil.Process(broker.pid()).net_connections("tcp")
        if link.status == psutil.CONN_LISTEN
    ]
    assert len(listening) == 2
    assert {ip.removeprefix("::ffff:") for ip in listening} == {"127.0.0.1"}


def test_damaged_storage_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    data = tmp_path / "kafka"
    with LocalBroker(data):
        pass
    whole = (data / "cluster.json").read_text()
    with pytest.raises(SetupError, match=r"nodes: 3: .* holds a cluster of 1"):
        LocalBroker(data, nodes=3).start()

    (data / "cluster.json").write_text(whole[:20])
    with pytest.raises(SetupError, match=r"cluster.json is damaged .* move it away"):
        LocalBroker(data).start()
    (data / "cluster.json").write_text(whole)

    meta = data / "node-1" / "log" / "meta.properties"
    text = meta.read_text()
    for damage in ("", text.replace("node.id=1", "node.id=2"), text[: len(text) // 2]):
        meta.write_text(damage)
        with pytest.raises(
            SetupError, match=r"data: .*meta.properties is damaged: expected node 1"
        ):
            LocalBroker(data).start()
    meta.write_text(text)
    with LocalBroker(data) as broker:
        assert broker.living == [1]


def test_a_disk_without_room_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("citybrain.broker.LEAST_FREE_MB", shutil.disk_usage(tmp_path).free)
    with pytest.raises(SetupError, match=r"disk: .*kafka: \d+ MB are free, Kafka needs"):
        LocalBroker(tmp_path / "kafka").start()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(SetupError, match=r"data: .*file/kafka"):
        LocalBroker(tmp_path / "file" / "kafka").start()


def test_a_broken_server_property_is_shown_in_kafkas_words(tmp_path: Path) -> None:
    broker = LocalBroker(tmp_path / "kafka", properties={"log.retention.ms": "long"})
    with pytest.raises(SetupError, match=r"log\.retention\.ms"):
        broker.start()
    with LocalBroker(tmp_path / "kafka") as mended:
        assert mended.living == [1]


async def test_topics_are_made_once_and_differences_are_told(
    broker: LocalBroker, city_id: str
) -> None:
    settings = broker.settings
    missing = await topics.differences(settings, city_id, partitions=4)
    assert {(d.what, d.found) for d in missing} == {("topic", "missing")}
    assert len(missing) == len(topics.TOPICS)

    made = await topics.ensure(settings, city_id, partitions=4)
    assert sorted(made) == sorted(topics.full_name(city_id, name) for name in topics.TOPICS)
    assert await topics.ensure(settings, city_id, partitions=8) == [], "nothing is changed"
    assert await topics.differences(settings, city_id, partitions=4) == []
    grown = await topics.differences(settings, city_id, partitions=8)
    assert {(d.what, d.expected, d.found) for d in grown} == {("partitions", "8", "4")}
    assert {d.topic for d in grown} == {
        topics.full_name(city_id, topic.name)
        for topic in topics.TOPICS.values()
        if topic.partitioned_by != "city"
    }


async def test_a_setting_that_somebody_changed_is_told(broker: LocalBroker, city_id: str) -> None:
    from aiokafka.admin import AIOKafkaAdminClient
    from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

    await topics.ensure(broker.settings, city_id, partitions=1)
    name = topics.full_name(city_id, "readings")
    config = topics.TOPICS["readings"].config(1) | {"retention.ms": "60000"}
    admin = await kafka.started(
        AIOKafkaAdminClient(**kafka.admin_arguments(broker.settings)), broker.settings
    )
    try:
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, config)])
    finally:
        await admin.close()
    changed: list[topics.Difference] = []
    until = time.monotonic() + 10
    while not changed and time.monotonic() < until:  # the broker applies it a moment later
        changed = await topics.differences(broker.settings, city_id, partitions=1)
    assert changed == [topics.Difference(name, "retention.ms", str(14 * topics.DAY_MS), "60000")]


async def test_a_record_carries_the_brokers_receipt_time(broker: LocalBroker, city_id: str) -> None:
    settings = broker.settings
    await topics.ensure(settings, city_id, partitions=1)
    place = TopicPartition(topics.full_name(city_id, "readings"), 0)
    producer = AIOKafkaProducer(**kafka.producer_arguments(settings))
    consumer = AIOKafkaConsumer(**kafka.consumer_arguments(settings))
    await kafka.started(producer, settings)
    await kafka.started(consumer, settings)
    try:
        begin_ms = int(time.time() * 1000)
        long_ago_ms = begin_ms - 365 * topics.DAY_MS
        await producer.send_and_wait(place.topic, b"x", partition=0, timestamp_ms=long_ago_ms)
        consumer.assign([place])
        record = await consumer.getone()
        assert begin_ms <= record.timestamp <= begin_ms + 10_000
    finally:
        await consumer.stop()
        await producer.stop()


async def test_the_largest_snapshot_passes_and_one_above_is_refused_here(
    broker: LocalBroker, city_id: str
) -> None:
    await topics.ensure(broker.settings, city_id, partitions=1)
    topic = topics.full_name(city_id, "snapshots")
    largest = os.urandom(kafka.LARGEST_MESSAGE_BYTES - 2 * 4_096)
    await write(broker.settings, topic, [largest])
    assert await read(broker.settings, topic, 1) == [largest]
    with pytest.raises(MessageSizeTooLargeError):
        await write(broker.settings, topic, [bytes(kafka.LARGEST_MESSAGE_BYTES)])


async def test_a_second_producer_of_a_transactional_id_fences_the_first(
    broker: LocalBroker, city_id: str
) -> None:
    settings = broker.settings
    await topics.ensure(settings, city_id, partitions=1)
    topic = topics.full_name(city_id, "snapshots")
    arguments = kafka.producer_arguments(settings, transactional_id=f"{city_id}-rollup-0")
    zombie = await kafka.started(AIOKafkaProducer(**arguments), settings)
    async with zombie.transaction():
        await zombie.send_and_wait(topic, b"old", b"k", partition=0)
    heir = await kafka.started(AIOKafkaProducer(**arguments), settings)
    try:
        with pytest.raises(ProducerFenced):
            async with zombie.transaction():
                await zombie.send_and_wait(topic, b"older than it knows", b"k", partition=0)
        async with heir.transaction():
            await heir.send_and_wait(topic, b"new", b"k", partition=0)
        assert await read(settings, topic, 2) == [b"old", b"new"]
    finally:
        await zombie.stop()
        await heir.stop()


async def test_compaction_can_be_made_to_happen_during_a_test(tmp_path: Path, city_id: str) -> None:
    fast = {
        "segment.ms": "200", "min.cleanable.dirty.ratio": "0.01", "min.compaction.lag.ms": "0",
    }  # fmt: skip
    async with LocalBroker(
        tmp_path / "kafka",
        properties={"log.cleaner.backoff.ms": 200, "log.initial.task.delay.ms": 0},
    ) as compacting:
        settings = compacting.settings
        await topics.ensure(settings, city_id, partitions=1, overrides={"alerts": fast})
        differing = await topics.differences(settings, city_id, partitions=1)
        assert {(d.what, d.found) for d in differing} == set(fast.items())
        topic = topics.full_name(city_id, "alerts")
        until = time.monotonic() + 60
        written, left = 0, 0
        while left >= written and time.monotonic() < until:
            await write(settings, topic, [b"of the same key"])
            written += 1
            left = len(await read(settings, topic, written, wait_ms=1_000))
        assert left < written, "old values of a key are gone"


async def test_signing_in(tmp_path: Path) -> None:
    accounts = (
        "org.apache.kafka.common.security.plain.PlainLoginModule required"
        ' username="city" password="right" user_city="right";'
    )
    sasl = {
        "listener.security.protocol.map": "PLAINTEXT:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT",
        "sasl.enabled.mechanisms": "PLAIN",
        "sasl.mechanism.inter.broker.protocol": "PLAIN",
        "listener.name.plaintext.plain.sasl.jaas.config": accounts,
    }
    async with LocalBroker(tmp_path / "kafka", properties=sasl) as broker:
        ours = KafkaSettings(
            broker.settings.bootstrap,
            security_protocol="SASL_PLAINTEXT",
            sasl_mechanism="PLAIN",
            sasl_username="city",
            sasl_password="right",
        )
        assert (await kafka.ping(ours)).nodes == tuple(ours.servers)
        with pytest.raises(BrokerError, match=r"as city.* cannot be used") as refused:
            await kafka.ping(replace(ours, sasl_password="wrong"))
        assert "wrong" not in str(refused.value)


def test_a_disk_that_fills_up_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=40m", "none", str(disk)],
        check=False, capture_output=True,
    )  # fmt: skip
    if mounted.returncode:
        pytest.skip("this user may not mount a small disk")
    try:
        monkeypatch.setattr("citybrain.broker.LEAST_FREE_MB", 1)
        with LocalBroker(disk / "kafka") as broker:
            asyncio.run(topics.ensure(broker.settings, "small", partitions=1))
            filling = write(
                broker.settings, topics.full_name("small", "readings"), [os.urandom(1 << 20)] * 50
            )
            with pytest.raises((KafkaError, TimeoutError)):
                asyncio.run(asyncio.wait_for(filling, 15))
            until = time.monotonic() + 30
            while broker.living and time.monotonic() < until:
                time.sleep(0.1)
            assert broker.last_words().startswith(f"disk: {disk}/kafka/node-1: no space is left")
    finally:
        subprocess.run(["umount", str(disk)], check=True)


async def test_ping_says_who_is_there(broker: LocalBroker) -> None:
    answer = await kafka.ping(broker.settings)
    assert answer.nodes == tuple(broker.settings.servers)
    assert answer.cluster_id
    assert answer.round_trip_ms >= 0


async def test_three_nodes_lose_one_and_nothing_that_was_acknowledged(
    tmp_path: Path, city_id: str
) -> None:
    async with LocalBroker(tmp_path / "kafka", nodes=3, heap_mb=256) as cluster:
        settings = cluster.settings
        assert len((await kafka.ping(settings)).nodes) == 3
        await topics.ensure(settings, city_id, partitions=1, replication=3)
        assert await topics.differences(settings, city_id, partitions=1, replication=3) == []
        topic = topics.full_name(city_id, "findings")
        values = [f"{n}".encode() for n in range(200)]
        await write(settings, topic, values[:100])
        cluster.kill(node=1)
        assert cluster.living == [2, 3]
        await write(settings, topic, values[100:])
        cluster.start_node(node=1)
        assert cluster.living == [1, 2, 3]
        assert await read(settings, topic, 200) == values
