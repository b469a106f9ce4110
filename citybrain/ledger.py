"""Where all readings of a city are: a sum that must come out, from what each party has counted.

produced = counted + duplicate + backfilled + overflowed + dead_lettered + in_flight, each
counted on its own: produced, duplicate and overflowed by the edge agents as readings come in;
counted and backfilled by the rollup stage as they come out; dead_lettered by both; in_flight
is what lies in the agents' spools and, by its header `n`, on the readings logs behind the
records that the rollup stage has counted. Batches that transport brought twice are `repeated`:
they were produced once, so they are in neither side of the sum. What was retried from the dead
letter is there no longer.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from aiokafka import ConsumerRecord

from citybrain.accounts import Account
from citybrain.contents import latest, records
from citybrain.kafka import KafkaSettings


class Book(msgspec.Struct, frozen=True, kw_only=True):
    """Totals of a city since its beginning. in_flight = spooled + on_log.

    sent: what the edge says that it has handed to the log; received: what the engine and the
    log have of it. At one moment they are the same.
    """

    produced: int
    counted: int
    duplicate: int
    backfilled: int
    overflowed: int
    dead_lettered: int
    in_flight: int
    spooled: int
    on_log: int
    sent: int
    received: int
    repeated: int
    late: int

    @property
    def unexplained(self) -> int:
        """Readings that were produced and are nowhere; negative: counted but never produced.

        While a city runs, the parties' accounts are of slightly different moments: `agree`
        compares two books of it.
        """
        return self.produced - (
            self.counted + self.duplicate + self.backfilled + self.overflowed
            + self.dead_lettered + self.in_flight
        )  # fmt: skip

    @property
    def holds(self) -> bool:
        """Whether every reading is accounted for."""
        return self.unexplained == 0


def reckon(accounts: Iterable[Account], on_log: int) -> Book:
    """The book from the parties' last accounts, and readings on the logs that nobody counted."""
    parties: dict[str, Counter[str]] = {"edge": Counter(), "rollup": Counter(), "retry": Counter()}
    for account in accounts:
        parties.setdefault(account.party.partition("/")[0], Counter()).update(account.counts)
    edge, rollup = parties["edge"], parties["rollup"]
    spooled = edge["spooled"]
    refused = edge["conflict"] + edge["invalid"]
    dead_lettered = rollup["dead_lettered"] - parties["retry"]["retried"]
    return Book(
        produced=edge["produced"],
        counted=rollup["counted"],
        duplicate=edge["duplicate"],
        backfilled=rollup["backfilled"],
        overflowed=edge["overflowed"],
        dead_lettered=refused + dead_lettered,
        in_flight=spooled + on_log,
        spooled=spooled,
        on_log=on_log,
        sent=edge["produced"] - edge["duplicate"] - refused - edge["overflowed"] - spooled,
        received=rollup["counted"] + rollup["backfilled"] + dead_lettered + on_log,
        repeated=rollup["duplicate"],
        late=rollup["late"],
    )


def agree(first: Book, last: Book) -> bool:
    """Whether two books of a running city leave no reading unexplained.

    Accounts lag behind the log by seconds. What had been sent at first must have been received
    at last, and what had been received at first must have been sent at last; nothing that is
    lost or doubled for longer than the time between them passes both.
    """
    return last.holds or (first.sent <= last.received and first.received <= last.sent)


async def read(settings: KafkaSettings, city: str, shards: Mapping[str, int]) -> Book:
    """The book of a running or stopped city. shards: shard -> partition, as in its pack.

    Raises BrokerError if the cluster cannot be read.
    """
    accounts = await read_accounts(settings, city)
    counted = {a.shard: a.next_offset for a in accounts if a.party == "rollup"}
    since = {partition: counted.get(shard, 0) for shard, partition in shards.items()}
    on_log = 0
    async for record in records(settings, city, "readings", since):
        on_log += readings_of(record)
    return reckon(accounts, on_log)


async def read_accounts(settings: KafkaSettings, city: str) -> list[Account]:
    """The last account of every party."""
    found = await latest(settings, city, "accounts")
    return [msgspec.json.decode(value, type=Account) for value in found.values()]


def readings_of(record: ConsumerRecord[Any, Any]) -> int:
    """How many readings a record of the readings log says that it holds."""
    claimed = dict(record.headers).get("n", b"0")
    return int(claimed) if claimed.isdigit() else 0
