"""`<data>/world/`: which times the world has lived through, saved states, tokens, the schedule.

spans.json      times [from, to) in ms that devices have reported, in the live lane
progress.json   the same of the simulated past, and how far it has got
state-*         the simulator, and the world around it, at a second
tokens.json     gateway -> token, readable by its owner alone
events.json     the hidden schedule
sent.json       the source's own count of readings
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from citybrain.edge.tokens import Tokens
from citybrain.edge.world.memory import readable
from citybrain.errors import SetupError

Span = tuple[int, int]

# A state this old is simulated on, silently, to the second where the story goes on.
GO_ON_S = 300


class Progress(msgspec.Struct, kw_only=True):
    """How far the simulated past has got. done: times [from, to) in ms. generated: always.

    from_ms, to_ms: what this run was to fill; through_ms: how far it is; readings: sent.
    """

    generated: bool = True
    from_ms: int = 0
    to_ms: int = 0
    through_ms: int = 0
    readings: int = 0
    finished: bool = False
    done: list[Span] = []


@dataclass(frozen=True, slots=True)
class Folder:
    """The files of one world."""

    path: Path

    def tokens(self, gateways: Sequence[str], data: Path, now_ms: int) -> dict[str, str]:
        """The gateways' tokens; on the edge agent's own machine, fresh ones where they lack.

        Raises SetupError if the file is damaged, or a gateway has none and this is not where
        the agent's grants are.
        """
        file = self.path / "tokens.json"
        grants = Tokens(data)
        here = (data / "secrets" / "tokens.json").is_file() or not file.is_file()
        try:
            body = file.read_bytes() if file.is_file() else b"{}"
            known = msgspec.json.decode(body, type=dict[str, str])
        except msgspec.MsgspecError as error:
            raise SetupError(f"{file}: {error}") from error
        for gateway in gateways:
            if here and not grants.check(known.get(gateway, "")):
                known[gateway] = grants.add(gateway, "", now_ms)
            elif gateway not in known:
                raise SetupError(f"{file}: gateway {gateway!r} has no token in it")
        write(file, known, mode=0o600)
        return {gateway: known[gateway] for gateway in gateways}

    def spans(self) -> list[Span]:
        """Times that the living world has reported."""
        file = self.path / "spans.json"
        return msgspec.json.decode(file.read_bytes(), type=list[Span]) if file.is_file() else []

    def write_spans(self, spans: Iterable[Span]) -> None:
        """Keep them, joined where they meet."""
        write(self.path / "spans.json", joined(spans))

    def progress(self) -> Progress:
        """Of the simulated past; a fresh one if there was none."""
        file = self.path / "progress.json"
        return (
            msgspec.json.decode(file.read_bytes(), type=Progress) if file.is_file() else Progress()
        )

    def write_progress(self, progress: Progress) -> None:
        """Keep it, whole or not at all."""
        write(self.path / "progress.json", msgspec.to_builtins(progress))

    def state(self, second: int) -> tuple[Path, int] | None:
        """The newest saved state of that second or shortly before, and its second."""
        found = [int(p.name[6:-7]) for p in self.path.glob("state-*.xml.gz")]
        for at in sorted((s for s in found if second - GO_ON_S <= s <= second), reverse=True):
            if readable(self.state_file(at)):
                return self.state_file(at), at
        return None

    def state_file(self, second: int) -> Path:
        """Where a state of that second belongs."""
        return self.path / f"state-{second}.xml.gz"

    def forget_state(self, second: int) -> None:
        """A later state has taken its place."""
        for end in (".xml.gz", ".json"):
            (self.path / f"state-{second}{end}").unlink(missing_ok=True)


def joined(spans: Iterable[Span]) -> list[Span]:
    """Spans in order, those that meet or overlap made one."""
    out: list[Span] = []
    for start, end in sorted(spans):
        if out and start <= out[-1][1]:
            out[-1] = (out[-1][0], max(out[-1][1], end))
        elif end > start:
            out.append((start, end))
    return out


def gaps(whole: Span, spans: Iterable[Span]) -> list[Span]:
    """What of `whole` the spans leave open, in order."""
    out: list[Span] = []
    at, end = whole
    for start, stop in joined(spans):
        if start > at:
            out.append((at, min(start, end)))
        at = max(at, stop)
        if at >= end:
            break
    if at < end:
        out.append((at, end))
    return [gap for gap in out if gap[1] > gap[0]]


def write(path: Path, body: Any, mode: int = 0o644) -> None:
    """JSON into a file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".tmp")
    draft.touch(mode)
    draft.write_text(json.dumps(body, ensure_ascii=False), encoding="utf-8")
    draft.replace(path)
