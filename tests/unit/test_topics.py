"""The topic table: every row can be a Kafka topic, and means what the design says."""

import pytest

from citybrain import topics
from citybrain.errors import UsageError
from citybrain.history.rows import DECODERS
from citybrain.kafka import LARGEST_MESSAGE_BYTES
from citybrain.topics import DAY_MS, LONGEST_OFFLINE_MS, TOPICS, Topic

ROWS = pytest.mark.parametrize("topic", TOPICS.values(), ids=TOPICS)


@ROWS
def test_a_row_is_whole(topic: Topic) -> None:
    assert topic.name == topic.name.lower()
    assert topic.doc
    assert topic.key
    assert topic.compact == (topic.retention_ms is None), "kept by key or by age, not both"
    assert 0 < topic.max_message_bytes <= LARGEST_MESSAGE_BYTES
    assert topic.partitions(of_city=8) == (1 if topic.partitioned_by == "city" else 8)
    assert len(topics.full_name("a" * 63, topic.name)) <= 249, "Kafka's limit on a name"


@ROWS
def test_segments_roll_often_enough_for_the_cleaner(topic: Topic) -> None:
    config = topic.config(replication=1)
    if topic.retention_ms is None:
        assert config["cleanup.policy"] == "compact"
        assert int(config["segment.ms"]) <= topics.HOUR_MS
        assert "retention.ms" not in config
    else:
        assert config["cleanup.policy"] == "delete"
        assert int(config["segment.ms"]) * 2 < topic.retention_ms


@ROWS
def test_history_misses_no_change_after_a_long_weekend_without_the_historian(topic: Topic) -> None:
    if topic.name not in DECODERS or topic.name == "accounts":  # totals: the latest says all
        return
    kept = topic.retention_ms if topic.retention_ms is not None else topic.whole_ms
    assert kept >= topics.LONG_WEEKEND_MS
    if topic.compact:
        assert topic.config(1)["min.compaction.lag.ms"] == str(topic.whole_ms)


def test_every_topic_that_history_reads_is_in_the_table() -> None:
    assert DECODERS.keys() <= TOPICS.keys()


def test_raw_readings_outlive_the_longest_promised_absence() -> None:
    for name in ("readings", "stats", "backfill"):
        kept = TOPICS[name].retention_ms
        assert kept is not None
        assert kept >= max(14 * DAY_MS, LONGEST_OFFLINE_MS)


@ROWS
def test_the_time_of_every_record_is_the_brokers_receipt(topic: Topic) -> None:
    assert topic.config(1)["message.timestamp.type"] == "LogAppendTime"


def test_what_is_decided_in_one_order_has_one_partition() -> None:
    for name in ("findings", "alerts", "dispatches", "outbox"):
        assert TOPICS[name].partitions(of_city=16) == 1


@pytest.mark.parametrize(("replication", "in_sync"), [(1, "1"), (2, "1"), (3, "2")])
def test_a_write_survives_one_lost_replica_where_there_are_three(
    replication: int, in_sync: str
) -> None:
    assert TOPICS["snapshots"].config(replication)["min.insync.replicas"] == in_sync


def test_a_dead_letter_has_room_for_the_bytes_of_any_input() -> None:
    largest = max(TOPICS[name].max_message_bytes for name in ("readings", "stats", "findings"))
    base64 = largest * 4 // 3
    assert TOPICS["dead-letter"].max_message_bytes > base64


def test_names_of_topics_and_cities_are_checked() -> None:
    assert topics.full_name("adlershof", "link-states") == "citybrain.adlershof.link-states"
    with pytest.raises(UsageError, match="topic: 'linkstates' is not one of"):
        topics.full_name("adlershof", "linkstates")
    for city in ("", "Berlin", "a.b", "-a", "a" * 64):
        with pytest.raises(UsageError, match="city: "):
            topics.full_name(city, "alerts")
