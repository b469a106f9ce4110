"""What devices have already said, so that a retry is told from a new reading; pure.

Bounded: the last `limit / 2` to `limit` accepted readings are remembered, 16 bytes each,
whatever their event time, so live and backfilled readings are treated alike.
"""

import numpy as np
import numpy.typing as npt

from citybrain.edge.fates import ACCEPTED, CONFLICT, DUPLICATE

Keys = npt.NDArray[np.uint64]
Values = npt.NDArray[np.float64]

_TIME_BITS = 42  # milliseconds to the year 2109
SERIES_LIMIT = 1 << (64 - _TIME_BITS)


def keys(series: npt.NDArray[np.int64], time_ms: npt.NDArray[np.int64]) -> Keys:
    """One number a reading: its series (below SERIES_LIMIT) and event time."""
    shifted = series.astype(np.uint64) << np.uint64(_TIME_BITS)
    return shifted | time_ms.astype(np.uint64)


class Repeats:
    """Sorted runs that merge as they grow, in two generations; a full one replaces the old."""

    def __init__(self, limit: int = 1 << 21) -> None:
        self._half = max(1, limit // 2)
        self._young: list[tuple[Keys, Values]] = []
        self._old: list[tuple[Keys, Values]] = []

    def __len__(self) -> int:
        return sum(len(run[0]) for run in (*self._young, *self._old))

    def judge(self, keys: Keys, values: Values) -> npt.NDArray[np.int8]:
        """ACCEPTED, DUPLICATE or CONFLICT by reading; repeats within `keys` count too."""
        order = np.argsort(keys, kind="stable")
        sorted_keys = keys[order]
        first = np.ones(len(keys), np.bool_)
        first[1:] = sorted_keys[1:] != sorted_keys[:-1]
        run = np.cumsum(first) - 1
        heads = order[first]
        base, known = values[heads].copy(), np.zeros(len(heads), np.bool_)
        for run_keys, run_values in (*self._young, *self._old):
            at = np.searchsorted(run_keys, keys[heads])
            at[at == len(run_keys)] = 0
            hit = run_keys[at] == keys[heads]
            base[hit] = run_values[at[hit]]
            known |= hit
        fates = np.where(values[order] == base[run], DUPLICATE, CONFLICT).astype(np.int8)
        fates[first & ~known[run]] = ACCEPTED
        result = np.empty_like(fates)
        result[order] = fates
        return result

    def remember(self, keys: Keys, values: Values) -> None:
        """These readings were accepted and are stored. They must be new to `judge`."""
        if not len(keys):
            return
        order = np.argsort(keys)
        self._young.append((keys[order], values[order]))
        runs = self._young
        while len(runs) > 1 and len(runs[-2][0]) <= 2 * len(runs[-1][0]):
            (a, x), (b, y) = runs.pop(-2), runs.pop()
            both = np.concatenate([a, b])
            order = np.argsort(both, kind="stable")
            runs.append((both[order], np.concatenate([x, y])[order]))
        if sum(len(run[0]) for run in runs) >= self._half:
            self._old, self._young = runs, []
