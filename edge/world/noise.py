"""Smooth random curves of time without state: value noise between seeded knots."""

import hashlib
import struct


def curve(seed: int, name: str, time_ms: int, period_ms: int) -> float:
    """A smooth curve in -1..1 that forgets itself after some `period_ms`."""
    knot, rest = divmod(time_ms, period_ms)
    share = rest / period_ms
    share = share * share * (3 - 2 * share)
    return _at(seed, name, knot) * (1 - share) + _at(seed, name, knot + 1) * share


def _at(seed: int, name: str, knot: int) -> float:
    digest = hashlib.blake2b(f"{seed}/{name}/{knot}".encode(), digest_size=8).digest()
    return float(struct.unpack("<q", digest)[0] / 2**63)
