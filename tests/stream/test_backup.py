"""backup and restore on a real broker: all that history and the compacted topics held is back."""

import json
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer

from citybrain import contents, pack, topics
from citybrain.broker import LocalBroker
from citybrain.errors import BrokerError, UsageError
from citybrain.history.backup import backup, restore
from citybrain.history.intake import Intake
from citybrain.history.read import Reader
from citybrain.history.store import Store
from citybrain.kafka import producer_arguments
from tests.packs import CITY, write_pack
from tests.unit.test_history import NOON, readings

COUNT = "select count(*) n, sum(value) total from readings"


async def test_what_was_backed_up_from_a_running_city_is_there_after_a_restore(
    broker: LocalBroker, city_id: str, tmp_path: Path
) -> None:
    city = pack.load(str(write_pack(tmp_path / "p", city=CITY.replace('"small"', f'"{city_id}"'))))
    data, out = tmp_path / "data", tmp_path / "backup"
    (data / "secrets").mkdir(parents=True)
    (data / "secrets" / "tokens.json").write_text("{}")
    await topics.ensure(broker.settings, city.id, city.partitions)
    async with AIOKafkaProducer(**producer_arguments(broker.settings)) as producer:
        for value in (b"old", b"new"):
            name = topics.full_name(city.id, "alerts")
            await producer.send_and_wait(name, value, key=b"r/p/0", partition=0)
    with Store(data / "history") as store:  # a living writer
        intake = Intake(city.kinds, {})
        for seq in range(3):
            rows = intake.take(readings(seq, NOON, seq))
            assert rows is not None
            store.add(rows, ("readings", 0, seq))
            store.flush({("readings", 0): seq + 1}, intake.sequences)
        done = await backup(broker.settings, city, data, out, lambda: 7)
    assert done.topics["alerts"] == 1
    with pytest.raises(UsageError, match="not an empty folder"):
        await backup(broker.settings, city, data, out, lambda: 7)
    with pytest.raises(BrokerError, match="never run"):
        await restore(broker.settings, city, out, tmp_path / "other")

    restored = tmp_path / "restored"
    with LocalBroker(tmp_path / "kafka") as fresh:
        again = pack.load(str(out / "pack"))
        assert again.version == city.version
        await restore(fresh.settings, again, out, restored)
        assert await contents.latest(fresh.settings, city.id, "alerts") == {b"r/p/0": b"new"}
    with Reader(data / "history") as before, Reader(restored / "history") as after:
        assert after.query(COUNT).to_pylist() == before.query(COUNT).to_pylist()
        assert after.query(COUNT).to_pylist()[0]["n"] == 9
    assert (restored / "secrets" / "tokens.json").read_text() == "{}"
    with Store(restored / "history") as store:
        assert store.journal.offsets() == {}
        intake = Intake(city.kinds, store.journal.sequences())
        assert intake.take(readings(2, NOON, 0)) is None  # what a gateway repeats is still known


async def test_a_damaged_backup_is_refused_by_the_file(
    broker: LocalBroker, city_id: str, tmp_path: Path
) -> None:
    city = pack.load(str(write_pack(tmp_path / "p", city=CITY.replace('"small"', f'"{city_id}"'))))
    await topics.ensure(broker.settings, city.id, city.partitions)
    await backup(broker.settings, city, tmp_path / "data", tmp_path / "b", lambda: 7)
    manifest = json.loads((tmp_path / "b" / "backup.json").read_text())
    assert manifest["at_ms"] == 7
    (tmp_path / "b" / "topics" / "models.parquet").write_bytes(b"PAR1")
    with pytest.raises(UsageError, match=r"models\.parquet"):
        await restore(broker.settings, city, tmp_path / "b", tmp_path / "d")
