"""The alerts as a table in SQLite: a view that the alerts topic alone fills, built anew from it.

Every start reads the topic from its beginning. Rows of the last run stay visible meanwhile;
those that the topic no longer has go when its end is reached.
"""

import sqlite3
from pathlib import Path

import msgspec

from citybrain.alerts import Alert
from citybrain.errors import SetupError

_SCHEMA = """
CREATE TABLE IF NOT EXISTS alerts (
  id TEXT PRIMARY KEY, revision INTEGER NOT NULL, active INTEGER NOT NULL,
  acknowledged INTEGER NOT NULL, severity INTEGER NOT NULL, rule TEXT NOT NULL,
  zone TEXT NOT NULL, opened_ms INTEGER NOT NULL, updated_ms INTEGER NOT NULL,
  record BLOB NOT NULL, pass INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS alerts_by_time ON alerts (updated_ms DESC, id);
"""
_UPSERT = """
INSERT INTO alerts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET
  revision = excluded.revision, active = excluded.active,
  acknowledged = excluded.acknowledged, severity = excluded.severity, rule = excluded.rule,
  zone = excluded.zone, opened_ms = excluded.opened_ms, updated_ms = excluded.updated_ms,
  record = excluded.record, pass = excluded.pass
WHERE excluded.revision >= alerts.revision OR alerts.pass < excluded.pass
"""


class AlertView:
    """The table. One writer; other processes may read the file while it is written (WAL).

    Raises SetupError if the file cannot be opened or is no such table.
    """

    def __init__(self, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, isolation_level=None)
            self._db.execute("PRAGMA journal_mode = WAL")
            # The topic is the truth: a lost last second after a power cut is read again.
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._db.executescript(_SCHEMA)
            self._pass = (
                1 + self._db.execute("SELECT coalesce(max(pass), 0) FROM alerts").fetchone()[0]
            )
        except (OSError, sqlite3.Error) as error:
            raise SetupError(
                f"{path}: {error}; it is only a view of the alerts topic and may be deleted"
            ) from error

    def put(self, alert: Alert) -> None:
        """Keep an alert's record, unless a later revision is there already."""
        self._db.execute(
            _UPSERT,
            (
                alert.id, alert.revision, alert.active, alert.acknowledged, alert.severity,
                alert.rule, alert.place.zone, alert.opened_ms, alert.updated_ms,
                msgspec.json.encode(alert), self._pass,
            ),
        )  # fmt: skip

    def drop(self, alert_id: str) -> None:
        """The topic removed this alert."""
        self._db.execute("DELETE FROM alerts WHERE id = ?", (alert_id,))

    def complete(self) -> None:
        """The end of the topic was reached: what it did not bring again is gone."""
        self._db.execute("DELETE FROM alerts WHERE pass < ?", (self._pass,))

    def find(
        self,
        active: bool | None = None,
        severity: int | None = None,
        zone: str | None = None,
        before_ms: int | None = None,
        limit: int = 100,
    ) -> list[Alert]:
        """Alerts by the time of their last change, newest first."""
        wanted = {"active = ?": active, "severity = ?": severity, "zone = ?": zone,
                  "updated_ms < ?": before_ms}  # fmt: skip
        given = {clause: value for clause, value in wanted.items() if value is not None}
        where = " AND ".join(given) or "1"
        rows = self._db.execute(
            f"SELECT record FROM alerts WHERE {where} ORDER BY updated_ms DESC, id LIMIT ?",
            (*given.values(), limit),
        )
        return [msgspec.json.decode(record, type=Alert) for (record,) in rows]

    def close(self) -> None:
        """Close the file."""
        self._db.close()
