"""Sequence numbers of batches: what makes a repeat of a message a repeat, for every reader."""

import msgspec

MAX_GAPS = 4_096


class Sequence(msgspec.Struct):
    """Numbers of one incarnation's batches: all below `next` were had, save the gaps."""

    next: int = 0
    gaps: list[tuple[int, int]] = []

    def take(self, seq: int) -> tuple[bool, int]:
        """Whether this number is new, and how many before it are missing since now."""
        if seq >= self.next:
            missing = seq - self.next
            if missing:
                self.gaps = [*self.gaps, (self.next, seq)][-MAX_GAPS:]
            self.next = seq + 1
            return True, missing
        for i, (first, end) in enumerate(self.gaps):
            if first <= seq < end:
                parts = [(a, b) for a, b in ((first, seq), (seq + 1, end)) if a < b]
                self.gaps = self.gaps[:i] + parts + self.gaps[i + 1 :]
                return True, -1
        return False, 0
