"""What was delivered where: a SQLite table that lets each effect reach each address at most once.

An effect becomes `sending`, durably, before it is sent. Where a process dies in between, nobody
knows whether it arrived, and it is never sent again: its state becomes `unknown`. Only what
surely did not arrive (no connection, or an answer that asks to try later) is tried again.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from citybrain.errors import SetupError
from citybrain.kinds import DAY, HOUR, SECOND

State = Literal["waiting", "sending", "delivered", "refused", "unknown", "expired"]

EXPIRES_MS = HOUR
"""An alert that could not be told for so long is no news any more."""
KEEP_MS = 8 * DAY
"""Longer than the outbox topic keeps its records, so that none is taken for a new one."""
LONGEST_PAUSE_MS = 300 * SECOND

_SCHEMA = """
CREATE TABLE IF NOT EXISTS delivery (
    key TEXT NOT NULL,
    address TEXT NOT NULL,
    body BLOB NOT NULL,
    state TEXT NOT NULL,
    tries INTEGER NOT NULL,
    due_ms INTEGER NOT NULL,
    at_ms INTEGER NOT NULL,
    detail TEXT NOT NULL,
    PRIMARY KEY (key, address)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS due ON delivery (address, due_ms) WHERE state = 'waiting';
CREATE TABLE IF NOT EXISTS position (topic TEXT PRIMARY KEY, next_offset INTEGER NOT NULL);
"""


@dataclass(frozen=True, slots=True)
class Delivery:
    """One effect for one address. at_ms: when the effect was written, tries: sent so often."""

    key: str
    address: str
    body: bytes
    tries: int
    at_ms: int


class Deliveries:
    """The table of one city's deliveries. Raises SetupError if its file cannot be used."""

    def __init__(self, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, timeout=1, isolation_level=None)
            self._db.executescript(
                "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA locking_mode=EXCLUSIVE;"
                + _SCHEMA
            )
            unsure = "UPDATE delivery SET state = 'unknown' WHERE state = 'sending'"
            self.unknown = self._db.execute(unsure).rowcount
        except (OSError, sqlite3.Error) as error:
            raise SetupError(f"outbox: {path} cannot be used: {error}") from error

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    def next_offset(self, topic: str) -> int:
        """The first record of the outbox topic that was not taken yet."""
        row = self._db.execute("SELECT next_offset FROM position WHERE topic = ?", (topic,))
        found = row.fetchone()
        return int(found[0]) if found else 0

    def take(
        self,
        topic: str,
        next_offset: int,
        effects: Iterable[tuple[str, bytes, int]],
        addresses: Sequence[str],
    ) -> int:
        """Note effects (key, body, time of writing) for every address, and how far that is.

        How many were new; an effect that is known already, from whenever, is not noted again.
        """
        new = 0
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            for key, body, at_ms in effects:
                for address in addresses:
                    new += self._db.execute(
                        "INSERT OR IGNORE INTO delivery VALUES (?, ?, ?, 'waiting', 0, 0, ?, '')",
                        (key, address, body, at_ms),
                    ).rowcount
            self._db.execute("INSERT OR REPLACE INTO position VALUES (?, ?)", (topic, next_offset))
        return new

    def begin(self, address: str, now_ms: int) -> Delivery | None:
        """The next delivery that is due, now `sending`; what is too old is given up."""
        self._db.execute(
            "UPDATE delivery SET state = 'expired' WHERE state = 'waiting' AND address = ?"
            " AND at_ms < ?",
            (address, now_ms - EXPIRES_MS),
        )
        row = self._db.execute(
            "SELECT key, body, tries, at_ms FROM delivery WHERE state = 'waiting'"
            " AND address = ? AND due_ms <= ? ORDER BY at_ms, key LIMIT 1",
            (address, now_ms),
        ).fetchone()
        if row is None:
            return None
        key, body, tries, at_ms = row
        self._set(key, address, "sending", tries + 1, 0, "")
        return Delivery(key, address, body, tries + 1, at_ms)

    def end(self, delivery: Delivery, state: State, detail: str) -> None:
        """What became of it: `delivered`, `refused` or `unknown`."""
        self._set(delivery.key, delivery.address, state, delivery.tries, 0, detail)

    def again(self, delivery: Delivery, now_ms: int, detail: str) -> None:
        """It surely did not arrive: try later, each time after a longer pause."""
        pause_ms = min(LONGEST_PAUSE_MS, SECOND << min(delivery.tries, 20))
        self._set(
            delivery.key, delivery.address, "waiting", delivery.tries, now_ms + pause_ms, detail
        )

    def forget(self, now_ms: int) -> None:
        """Drop what the topic itself does not hold any more."""
        self._db.execute("DELETE FROM delivery WHERE at_ms < ?", (now_ms - KEEP_MS,))

    def counts(self) -> dict[str, int]:
        """Deliveries by state."""
        return dict(self._db.execute("SELECT state, count(*) FROM delivery GROUP BY state"))

    def _set(
        self, key: str, address: str, state: State, tries: int, due_ms: int, detail: str
    ) -> None:
        self._db.execute(
            "UPDATE delivery SET state = ?, tries = ?, due_ms = ?, detail = ?"
            " WHERE key = ? AND address = ?",
            (state, tries, due_ms, detail, key, address),
        )
