"""Windows that come in several messages, each of other sensors: held until they are whole."""

from collections.abc import Mapping, Sequence
from itertools import accumulate

import msgspec
import numpy as np

from citybrain import stats
from citybrain.columns import Roster, Rosters
from citybrain.stats import Stats

_COLUMNS = ("seen", "late", "sum", "sumsq", "min", "max", "last", "last_ms")


class Parts:
    """Blocks of its state: `part/<kind>/<window_ms>/<part>`, the messages as they came."""

    def __init__(self) -> None:
        self._held: dict[str, dict[int, tuple[Stats, bytes]]] = {}
        self._rosters: dict[tuple[Roster, ...], Roster] = {}
        self._dirty: dict[str, bytes] = {}

    def take(self, message: Stats, value: bytes) -> list[Stats]:
        """A message of a window; the windows that are to be looked at now.

        Usually that one, when its last part is there. A window of which a part never came is
        looked at as far as it is known, when a later one of its length begins.
        """
        head = message.head
        key = f"{head.kind}/{head.window_ms}"
        held = self._held.get(key)
        if head.parts == 1 and not held:
            return [message]
        done: list[Stats] = []
        if held and next(iter(held.values()))[0].head.start_ms != head.start_ms:
            done.append(self._whole(key))
        self._held.setdefault(key, {})[head.part] = (message, value)
        self._dirty[f"part/{key}/{head.part}"] = value
        if len(self._held[key]) == head.parts:
            done.append(self._whole(key))
        return done

    def _whole(self, key: str) -> Stats:
        held = self._held.pop(key)
        self._dirty |= {f"part/{key}/{part}": b"" for part in held}
        return joined([held[part][0] for part in sorted(held)], self._rosters)

    def changed(self) -> Mapping[str, bytes]:
        """Blocks that changed since the last call."""
        blocks, self._dirty = self._dirty, {}
        return blocks

    def restore(self, name: str, block: bytes, rosters: Rosters) -> None:
        """Take back one block of `changed`."""
        key, _, part = name.removeprefix("part/").rpartition("/")
        message = stats.decode(block, rosters)
        assert isinstance(message, Stats)
        self._held.setdefault(key, {})[int(part)] = (message, block)


def joined(messages: Sequence[Stats], known: dict[tuple[Roster, ...], Roster]) -> Stats:
    """Several messages of one window as one. known: rosters that were joined before, so that
    the same ones give the same object."""
    rosters = tuple(message.roster for message in messages)
    roster = known.get(rosters)
    if roster is None:
        if len(known) >= 64:
            known.clear()
        names = tuple(name for one in rosters for name in one.names)
        roster = known[rosters] = Roster(names)
    first = [0, *accumulate(len(one.names) for one in rosters[:-1])]
    codes = [message.codes + base for message, base in zip(messages, first, strict=True)]
    return Stats(
        msgspec.structs.replace(messages[0].head, part=0, parts=1),
        roster,
        np.concatenate(codes).astype(np.int32),
        *(np.concatenate([getattr(m, column) for m in messages]) for column in _COLUMNS),
    )
