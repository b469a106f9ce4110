"""What the centre knows of its city now. Pure: records in, a snapshot and changes out.

The page gets one snapshot and then changes; both have the same form, so that a page applies
a snapshot as a change to nothing.
"""

from collections import deque
from typing import Any

import msgspec
import numpy as np

from citybrain.accounts import Account
from citybrain.alerts import Alert
from citybrain.changes import Settings
from citybrain.city import City
from citybrain.dashboards.centre.emergency_view import EmergencyState, EmergencyView
from citybrain.dashboards.centre.frames import Floats, Frame, Frames
from citybrain.dashboards.centre.signals_view import SignalsState, SignalsView
from citybrain.findings import Entry, Finding, LinkState, Progress
from citybrain.fits import Demotion, Fit, Record
from citybrain.forecasts import Forecast
from citybrain.kinds import HOUR, MINUTE, SECOND
from citybrain.ledger import Book, reckon
from citybrain.stats import Decoded, Passed, Rules, Stats

CLEARED_KEPT = 300
"""Cleared alerts in memory; older ones are in the SQLite view."""
FLOOD_MS = 10 * MINUTE
RATE_MS = 30 * SECOND


class WindowView(msgspec.Struct, frozen=True, kw_only=True):
    """One window for all sensors of a shard, in roster order; None = nothing seen."""

    shard: str
    kind: str
    window_ms: int
    start_ms: int
    expected: int
    values: list[float | None]
    seen: list[int]


class ModelView(msgspec.Struct, frozen=True, kw_only=True):
    """How far the models of a kind are: in how many of its shards one is fitted."""

    kind: str
    shards: int
    fitted: int
    forecaster: str = ""
    fitted_ms: int = 0
    demoted: int = 0


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """The figures at the foot of the page.

    readings_per_s: counted by the engine over the last half minute, None until two accounts
    came. completeness: seen / expected of the newest shortest windows, whole and by kind.
    past: of the past days that a simulated city makes up, the share that is done; None where
    none are being made. through_ms: by shard, the event time up to which windows are closed.
    counts: readings by fate, totals since the city began (see `citybrain.ledger`). findings:
    raised in the last hour. raised: alerts raised in the last ten minutes.
    """

    readings_per_s: float | None
    completeness: float | None
    completeness_by_kind: dict[str, float]
    through_ms: dict[str, int]
    counts: dict[str, int]
    findings: int
    raised: int
    models: list[ModelView]
    past: float | None = None


class Changes(msgspec.Struct, frozen=True, kw_only=True):
    """What is new since the last change (or everything, in a snapshot)."""

    now_ms: int
    figures: Figures
    ready: bool
    waiting: str
    windows: list[WindowView] = []
    links: list[LinkState] = []
    alerts: list[Alert] = []
    gone: list[str] = []
    signals: SignalsView | None = None
    emergency: EmergencyView | None = None


class CityState:
    """The current state of one city."""

    def __init__(self, city: City, frames: Frames | None = None) -> None:
        self.city = city
        self.frames = frames or Frames(city)
        self.ready = False
        self.waiting = "broker"
        self.settings: Settings = {}
        self.pack = ""
        self.past: float | None = None
        self._links: dict[str, LinkState] = {}
        self._alerts: dict[str, Alert] = {}
        self._accounts: dict[tuple[str, str], Account] = {}
        self._counted: deque[tuple[int, int]] = deque(maxlen=256)
        self._through: dict[str, int] = {}
        self._fits: dict[tuple[str, str], Fit] = {}
        self._demoted: dict[tuple[str, str, int], str] = {}
        self._found: deque[int] = deque(maxlen=10_000)
        self._new_windows: dict[tuple[str, str, int, int], Frame] = {}
        self._new_links: dict[str, LinkState] = {}
        self._new_alerts: dict[str, Alert] = {}
        self._gone: list[str] = []
        self.signals = SignalsState(city)
        self.emergency = EmergencyState()

    def take_stats(self, record: Decoded) -> None:
        """A closed window, or the word that a shard's watermark passed."""
        if isinstance(record, Passed):
            self._pass(record.shard, record.through_ms)
        elif isinstance(record, Stats):
            head = record.head
            if head.backfill:
                return
            if head.shard in self.city.shards:
                self._pass(head.shard, head.start_ms + head.window_ms)
            frame = self.frames.take(record)
            if frame is not None:
                self._new_windows[head.shard, head.kind, head.window_ms, head.start_ms] = frame

    def take_link(self, state: LinkState) -> None:
        """How a road flows; the latest by event time holds."""
        before = self._links.get(state.link)
        if state.link not in self.city.links or (before and before.at_ms > state.at_ms):
            return
        self._links[state.link] = self._new_links[state.link] = state

    def take_alert(self, alert: Alert) -> bool:
        """An alert's record; False if this or a later revision was taken before."""
        before = self._alerts.get(alert.id)
        if before is not None and before.revision >= alert.revision:
            return False
        self._alerts[alert.id] = self._new_alerts[alert.id] = alert
        self._bound_alerts()
        return True

    def take_rules(self, rules: Rules) -> None:
        """What was changed of the pack's rules."""
        self.settings, self.pack = rules.settings, rules.pack

    def link(self, link: str) -> LinkState | None:
        """How a road flows, None if nobody said."""
        return self._links.get(link)

    def alert(self, alert_id: str) -> Alert | None:
        """An alert as it is now, None if it is not known or ended long ago."""
        return self._alerts.get(alert_id)

    def drop_alert(self, alert_id: str) -> None:
        """The alert's records were removed from the topic."""
        if self._alerts.pop(alert_id, None):
            self._new_alerts.pop(alert_id, None)
            self._gone.append(alert_id)

    def take_finding(self, entry: Entry) -> None:
        """The findings log: findings are counted, progress moves the shard's time."""
        if isinstance(entry, Finding):
            if entry.state == "raised":
                self._found.append(entry.at_ms)
        elif isinstance(entry, Progress):
            self._pass(entry.shard, entry.through_ms)

    def take_forecast(self, forecast: Forecast) -> None:
        """A forecast of one target window."""
        self.frames.expect(forecast)

    def take_fit(self, record: Record) -> None:
        """A fitted model, or a demotion."""
        if isinstance(record, Fit):
            self._fits[record.shard, record.kind] = record
        elif isinstance(record, Demotion):
            self._demoted[record.shard, record.kind, record.horizon_ms] = record.digest

    def take_account(self, account: Account) -> None:
        """Totals of one party."""
        before = self._accounts.get((account.party, account.shard))
        if before is not None and before.at_ms > account.at_ms:
            return
        self._accounts[account.party, account.shard] = account
        if account.party == "rollup":
            total = sum(
                a.counts.get("counted", 0)
                for (party, _), a in self._accounts.items()
                if party == "rollup"
            )
            self._counted.append((account.at_ms, total))

    def changes(self, now_ms: int) -> Changes | None:
        """What happened since the last call, None if nothing did."""
        signals, emergency = self.signals.changes(), self.emergency.changes()
        news = (
            self._new_windows, self._new_links, self._new_alerts, self._gone, signals, emergency
        )  # fmt: skip
        if not any(news):
            return None
        changes = Changes(
            now_ms=now_ms,
            figures=self.figures(now_ms),
            ready=self.ready,
            waiting=self.waiting,
            windows=[
                _view(*key[:3], frame) for key, frame in sorted(self._new_windows.items(), key=_key)
            ],
            links=list(self._new_links.values()),
            alerts=list(self._new_alerts.values()),
            gone=list(self._gone),
            signals=signals,
            emergency=emergency,
        )
        self._new_windows.clear()
        self._new_links.clear()
        self._new_alerts.clear()
        self._gone.clear()
        return changes

    def pulse(self, now_ms: int) -> Changes:
        """Only the figures, so that the page's ages and rates go on while nothing happens."""
        return Changes(
            now_ms=now_ms, figures=self.figures(now_ms), ready=self.ready, waiting=self.waiting
        )

    def snapshot(self, now_ms: int) -> Changes:
        """Everything that a page needs to begin."""
        return Changes(
            now_ms=now_ms,
            figures=self.figures(now_ms),
            ready=self.ready,
            waiting=self.waiting,
            windows=[_view(*key, frame) for key, frame in self.frames.latest().items()],
            links=list(self._links.values()),
            alerts=list(self._alerts.values()),
            signals=self.signals.snapshot(),
            emergency=self.emergency.snapshot(),
        )

    def figures(self, now_ms: int) -> Figures:
        """The figures at the foot of the page."""
        whole, by_kind = self._completeness()
        return Figures(
            readings_per_s=self._rate(now_ms),
            completeness=whole,
            completeness_by_kind=by_kind,
            through_ms=dict(self._through),
            counts=self._counts(),
            findings=sum(at_ms >= now_ms - HOUR for at_ms in self._found),
            raised=self.raised_since(now_ms - FLOOD_MS),
            models=self._models(),
            past=self.past,
        )

    def raised_since(self, since_ms: int) -> int:
        """How many alerts were opened at or after an event time."""
        return sum(alert.opened_ms >= since_ms for alert in self._alerts.values())

    def active(self, severity: int) -> int:
        """How many alerts of a severity are active."""
        return sum(alert.active and alert.severity == severity for alert in self._alerts.values())

    def through_ms(self) -> dict[str, int]:
        """By shard, the event time up to which windows are closed."""
        return dict(self._through)

    def _pass(self, shard: str, through_ms: int) -> None:
        self._through[shard] = max(through_ms, self._through.get(shard, through_ms))

    def _bound_alerts(self) -> None:
        cleared = [a for a in self._alerts.values() if not a.active]
        if len(cleared) > CLEARED_KEPT + 50:
            cleared.sort(key=lambda a: a.updated_ms)
            for alert in cleared[:-CLEARED_KEPT]:
                self.drop_alert(alert.id)

    def _completeness(self) -> tuple[float | None, dict[str, float]]:
        seen: dict[str, int] = {}
        expected: dict[str, int] = {}
        for (_, kind, window_ms), frame in self.frames.latest().items():
            if window_ms == self.city.kinds[kind].pane_ms:
                seen[kind] = seen.get(kind, 0) + int(np.minimum(frame.seen, frame.expected).sum())
                expected[kind] = expected.get(kind, 0) + frame.expected * len(frame.seen)
        by_kind = {kind: round(seen[kind] / expected[kind], 4) for kind in seen if expected[kind]}
        whole = sum(expected.values())
        return (round(sum(seen.values()) / whole, 4) if whole else None), by_kind

    def book(self) -> Book:
        """Where all readings are, as far as the accounts say; the logs are not counted."""
        return reckon(self._accounts.values(), on_log=0)

    def _counts(self) -> dict[str, int]:
        book = self.book()
        fates = ("produced", "counted", "duplicate", "backfilled", "overflowed", "dead_lettered")
        return {fate: getattr(book, fate) for fate in fates}

    def _rate(self, now_ms: int) -> float | None:
        if len(self._counted) < 2:
            return None
        last_ms, last = self._counted[-1]
        for at_ms, total in self._counted:
            if at_ms >= last_ms - RATE_MS and last_ms > at_ms:
                # An account that has stopped coming must not show its old rate for ever.
                until = last_ms if now_ms - last_ms < RATE_MS else now_ms
                # Totals that fell belong to a log that was made anew.
                return round(max(0, last - total) / (until - at_ms) * SECOND, 1)
        return None

    def _models(self) -> list[ModelView]:
        views = []
        for kind in self.city.kinds:
            shards = [s for s, rosters in self.frames.rosters.items() if rosters[kind]]
            fits = [self._fits[s, kind] for s in shards if (s, kind) in self._fits]
            demoted = sum(
                self._demoted.get((f.shard, kind, h)) == f.digest
                for f in fits
                for h in self.city.kinds[kind].horizons_ms
            )
            newest = max(fits, key=lambda f: f.at_ms, default=None)
            views.append(
                ModelView(
                    kind=kind,
                    shards=len(shards),
                    fitted=len(fits),
                    forecaster=newest.forecaster if newest else "",
                    fitted_ms=newest.at_ms if newest else 0,
                    demoted=demoted,
                )
            )
        return views


def _key(item: tuple[tuple[str, str, int, int], Frame]) -> int:
    return item[0][3]


def _view(shard: str, kind: str, window_ms: int, frame: Frame) -> WindowView:
    return WindowView(
        shard=shard,
        kind=kind,
        window_ms=window_ms,
        start_ms=frame.start_ms,
        expected=frame.expected,
        values=_numbers(frame.value),
        seen=frame.seen.tolist(),
    )


def _numbers(values: Floats) -> list[float | None]:
    numbers: list[Any] = np.round(values, 3).tolist()
    return [None if number != number else number for number in numbers]
