"""The dead letter: refused input with its reason, and its way back.

A letter is retried in one transaction with the record that says so, under one transactional id
a city: two people who retry at the same time cannot both send it, and a crash in between sends
nothing. Rows that the engine has refused out of a batch go back as a batch of the gateway
`dead-letter`, since the rest of their batch, and with it its number, has been counted already.
"""

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from citybrain import batch, findings
from citybrain.accounts import Account
from citybrain.columns import Rosters
from citybrain.contents import latest, records
from citybrain.errors import InvalidInput, Refused
from citybrain.findings import DeadLetter
from citybrain.kafka import KafkaSettings, producer_arguments, started, unreachable
from citybrain.topics import full_name

GATEWAY = "dead-letter"
EDGE = "edge"
"""The step of what an edge agent has refused: it goes back through its agent."""


class Tally(msgspec.Struct, frozen=True, kw_only=True):
    """Letters of one step and reason. example: the message of the newest."""

    step: str
    reason: str
    letters: int
    readings: int
    retried: int
    example: str


def tally(found: Iterable[DeadLetter]) -> list[Tally]:
    """How many letters there are by step and reason, the most first."""
    groups: dict[tuple[str, str], list[DeadLetter]] = {}
    for letter in found:
        groups.setdefault((letter.step, letter.reason), []).append(letter)
    tallies = [
        Tally(
            step=step,
            reason=reason,
            letters=len(group),
            readings=sum(letter.readings or 0 for letter in group),
            retried=sum(letter.retried_ms > 0 for letter in group),
            example=group[-1].message,
        )
        for (step, reason), group in groups.items()
    ]
    return sorted(tallies, key=lambda t: (-t.letters, t.step, t.reason))


async def letters(
    settings: KafkaSettings,
    city: str,
    wanted: Callable[[DeadLetter], bool] = lambda letter: True,
    bodies: bool = True,
) -> list[DeadLetter]:
    """Letters of a city, oldest first; those that were retried say so. Raises BrokerError.

    bodies: with their original bytes, which may be large.
    """
    found: dict[str, DeadLetter] = {}
    async for record in records(settings, city, "dead-letter"):
        letter = msgspec.json.decode(record.value, type=DeadLetter)
        if letter.retried_ms:
            known = found.get(letter.id)
            if known:
                marks = {"retried_ms": letter.retried_ms, "retried_by": letter.retried_by}
                found[letter.id] = msgspec.structs.replace(known, **marks)
        elif wanted(letter):
            kept = letter if bodies else msgspec.structs.replace(letter, original=b"")
            found.setdefault(letter.id, kept)
    return list(found.values())


async def nowhere(letter: DeadLetter) -> None:
    """Raises Refused: a letter that came from no topic, where no agent can be asked."""
    raise Refused(
        f"{letter.id}: came from no topic ({letter.step}: {letter.reason}); correct it and let"
        " its device send it again"
    )


async def retry(
    settings: KafkaSettings,
    city: str,
    shards: Mapping[str, int],
    wanted: Callable[[DeadLetter], bool],
    person: str,
    now_ms: int,
    resend: Callable[[DeadLetter], Awaitable[None]] = nowhere,
) -> list[DeadLetter]:
    """Send what is wanted and was not retried yet to where it came from; returns the letters.

    resend: gives what an edge agent has refused to its agent again, and raises Refused if that
    does not take it. Raises Refused if a wanted letter can go nowhere, BrokerError if the
    cluster or somebody else who retries is in the way; nothing has been sent to a topic then.
    """
    async with _producer(settings, city) as producer:
        # Only now: whoever retried before us is either done or shut out.
        waiting = [
            letter for letter in await letters(settings, city, wanted) if not letter.retried_ms
        ]
        for letter in waiting:
            if not letter.retry_topic:
                # Before anything is marked: if it is cut short, an agent knows its repeats.
                await resend(letter)
        accounts = await _accounts(settings, city)
        for letter in waiting:
            if letter.retry_topic:
                await producer.send(
                    full_name(city, letter.retry_topic),
                    body(letter, now_ms),
                    partition=letter.retry_partition,
                    headers=[("n", str(letter.readings or 0).encode())],
                )
            done = msgspec.structs.replace(
                letter, original=b"", retried_ms=now_ms, retried_by=person
            )
            await producer.send(
                full_name(city, "dead-letter"), findings.encode(done), key=done.id.encode()
            )
            if letter.retry_topic == "readings" and letter.readings:
                _book(accounts, _shard_of(shards, letter.retry_partition), letter.readings, now_ms)
        for account in accounts.values():
            if account.at_ms == now_ms:
                key = f"{account.party}/{account.shard}".encode()
                await producer.send(
                    full_name(city, "accounts"), msgspec.json.encode(account), key=key
                )
    return waiting


def body(letter: DeadLetter, now_ms: int) -> bytes:
    """What is sent when a letter is retried: its bytes, but rows out of a batch as their own.

    The new batch promises no watermark. It is of now, so that what was in the future when it
    was refused is so no longer.
    """
    if letter.retry_topic != "readings":
        return letter.original
    try:
        rows = batch.decode(letter.original, Rosters())
    except InvalidInput:
        return letter.original  # for a reader that may know better by now
    if not isinstance(rows, batch.Batch):
        return letter.original
    head = msgspec.structs.replace(
        rows.head, gateway=GATEWAY, incarnation=letter.id, seq=0, watermark_ms=0, sent_ms=now_ms
    )
    data = (rows.roster, rows.codes, rows.time_ms, rows.value, rows.quality)
    return batch.encode(batch.Batch(head, *data))


def by(ids: Collection[str], reason: str = "", step: str = "") -> Callable[[DeadLetter], bool]:
    """Letters with one of these ids (any without), this reason and this step."""

    def wanted(letter: DeadLetter) -> bool:
        return (
            (not ids or letter.id in ids)
            and (not reason or letter.reason == reason)
            and (not step or letter.step == step)
        )

    return wanted


@asynccontextmanager
async def _producer(settings: KafkaSettings, city: str) -> Any:
    """A producer within one transaction, committed if nothing goes wrong."""
    who = f"citybrain.{city}.dead-letter-retry"
    producer = AIOKafkaProducer(**producer_arguments(settings, transactional_id=who))
    await started(producer, settings)
    try:
        async with producer.transaction():
            yield producer
    except (KafkaError, OSError) as error:
        raise unreachable(settings, error) from error
    finally:
        await producer.stop()


async def _accounts(settings: KafkaSettings, city: str) -> dict[str, Account]:
    found = await latest(settings, city, "accounts")
    accounts = [msgspec.json.decode(value, type=Account) for value in found.values()]
    return {account.shard: account for account in accounts if account.party == "retry"}


def _book(accounts: dict[str, Account], shard: str, readings: int, now_ms: int) -> None:
    before = accounts[shard].counts["retried"] if shard in accounts else 0
    accounts[shard] = Account(
        party="retry", shard=shard, at_ms=now_ms, counts={"retried": before + readings}
    )


def _shard_of(shards: Mapping[str, int], partition: int) -> str:
    return next((shard for shard, number in shards.items() if number == partition), "")
