"""Whether a shell is up with its log for long enough to say that somebody is silent.

A gateway seems silent also while the broker was away, while we were, or while its records
still wait to be taken. Only who has read everything up to now, and has done so for a while,
may judge: agents that were cut off with us need that while to send what they have kept.
"""

from dataclasses import dataclass

FRESH_MS = 5_000
"""With records waiting, the last one taken may be so old at most."""
PATIENCE_MS = 15_000
"""For so long everything must have been up to date."""


@dataclass(slots=True)
class Present:
    """Since when one partition is up to date; None if it is not. Times are wall clock."""

    since_ms: int | None = None
    patience_ms: int = PATIENCE_MS

    def judge(self, now_ms: int, behind: int | None, record_ms: int) -> bool:
        """Whether silence may be judged now.

        behind: records that wait, None if the broker does not answer. record_ms: the
        broker's time of the record taken last.
        """
        up = behind is not None and (behind == 0 or now_ms - record_ms <= FRESH_MS)
        if not up:
            self.since_ms = None
        elif self.since_ms is None:
            self.since_ms = now_ms
        return self.since_ms is not None and now_ms - self.since_ms >= self.patience_ms
