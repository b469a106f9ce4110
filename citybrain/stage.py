"""What a stage of the engine is: a deterministic function of one log.

Rules of a stage, kept by every implementation:

* One stage object serves one partition of its input log; everything that may change its
  state arrives as a record of that log, in offset order. Whoever wants something of a stage
  (a command, a model to switch to, a gateway to leave out) writes a record into its log.
* `apply` never looks at a clock, a random source, or anything outside its arguments: the
  same records give the same outputs, byte for byte, at any speed and after any crash.
* `tick` alone is told the time. It changes nothing: it may only ask for control records to
  be written, so that a replay of the log sees what the clock did.
* Outputs may be repeated after a crash. They carry a deterministic identity and a revision;
  readers take each identity once, or the highest revision.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable


@dataclass(frozen=True, slots=True)
class Record:
    """One record of a log. `topic` is the short name of the topic table; times are UTC ms.

    entry: what `value` says, where the process that wrote it hands it on itself (a replay);
    then nobody has to decode it again.
    """

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    value: bytes
    key: bytes | None = None
    headers: tuple[tuple[str, bytes], ...] = ()
    entry: object = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Out:
    """A record to be written. With `partition` None the key decides.

    value: b"" deletes what a compacted topic has under the key. entry: what it says, as in
    `Record`.
    """

    topic: str
    value: bytes
    key: bytes | None = None
    partition: int | None = None
    headers: tuple[tuple[str, bytes], ...] = ()
    entry: object = field(default=None, compare=False, repr=False)


class Stage(Protocol):
    """A pure core behind one log partition. See the rules at the top of this module."""

    def apply(self, record: Record) -> Sequence[Out]:
        """Take one record, return what is to be written because of it."""

    def tick(self, now_ms: int) -> Sequence[Out]:
        """Control records to write because of the wall clock. Changes no state."""

    def changed(self) -> Mapping[str, bytes]:
        """State blocks that changed since the last call, by block name; b"" deletes one.

        The union of all blocks ever returned, latest last, is the whole state.
        """

    def restore(self, blocks: Mapping[str, bytes]) -> None:
        """Become the state that `changed` described. Called once, before any record.

        Raises InvalidInput if a block is of a version that this stage does not know.
        """

    def counts(self) -> Mapping[str, int]:
        """Totals since the beginning of the log (part of the state): readings by fate."""


@runtime_checkable
class Refusing(Protocol):
    """A stage that accounts for records which the shell may not let it apply."""

    def refuse(self, record: Record, reason: str, message: str) -> Sequence[Out]:
        """Count the record as refused, return what is to be written because of it."""


@runtime_checkable
class Telling(Protocol):
    """A stage that has more to tell Prometheus than counts of readings."""

    def facts(self) -> dict[str, int | None]:
        """Totals by name; `watermark_ms` is event time, None if there is none yet."""
