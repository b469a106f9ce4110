"""All that the analyse stage knows of one kind in one shard: layout, model, what is usual."""

from dataclasses import replace

import numpy as np

from citybrain.columns import Roster
from citybrain.errors import InvalidInput
from citybrain.kinds import Kind
from citybrain.models import fit
from citybrain.models.block import Array
from citybrain.models.detectors.base import Axis
from citybrain.models.fit import Model
from citybrain.models.seen import Seen, lay_out
from citybrain.stats import Effective, Stats

Records = tuple[list[Effective], list[Effective], list[Effective]]
"""A model in use, one that waits for its first window, one that is not whole yet."""

_LAYOUTS = 64


class Series:
    """Sensors in the order of the pack's roster. Models are kept as their records."""

    def __init__(self, kind: Kind, axis: Axis) -> None:
        self.kind = kind
        self.axis = axis
        self.roster = Roster(axis.names)
        self.model: Model | None = None
        self.active: list[Effective] = []
        self.waiting: list[Effective] = []
        self.arriving: list[Effective] = []
        self._next: Model | None = None
        self._position = {name: i for i, name in enumerate(axis.names)}
        self._layouts: dict[Roster, Array] = {}

    def lay_out(self, message: Stats, parked: Array) -> Seen:
        """The message's columns in this order; sensors that the pack does not know are left."""
        place = self._layouts.get(message.roster)
        if place is None:
            if len(self._layouts) >= _LAYOUTS:
                self._layouts.pop(next(iter(self._layouts)))
            names = message.roster.names
            place = np.array([self._position.get(name, -1) for name in names], dtype=np.int64)
            self._layouts[message.roster] = place
        mine = place[message.codes]
        index = np.full(len(self.axis.names), -1, dtype=np.int64)
        rows = np.flatnonzero(mine >= 0)
        index[mine[rows]] = rows
        return lay_out(message, self.kind, index, parked)

    def offer(self, record: Effective) -> None:
        """Take a part of a model; with the last one it waits for its `from_ms`.

        Raises InvalidInput `model` if it is damaged, of another kind or another window.
        """
        if self.arriving and self.arriving[0].digest != record.digest:
            self.arriving = []
        self.arriving = [r for r in self.arriving if r.part != record.part] + [record]
        if len(self.arriving) < record.parts:
            return
        whole, self.arriving = sorted(self.arriving, key=lambda r: r.part), []
        self._next, self.waiting = self._read(whole), whole

    def switch(self, start_ms: int) -> bool:
        """Go over to the waiting model if the window at `start_ms` is its first."""
        if self._next is None or start_ms < self.waiting[0].from_ms:
            return False
        self.model, self.active = self._next, self.waiting
        self._next, self.waiting = None, []
        return True

    def records(self) -> Records:
        """All model records that this state stands on, for a snapshot."""
        return self.active, self.waiting, self.arriving

    def recall(self, records: Records) -> None:
        """Become the state of `records`."""
        self.active, self.waiting, self.arriving = records
        self.model = self._read(self.active) if self.active else None
        self._next = self._read(self.waiting) if self.waiting else None

    def with_usual(self, seen: Seen) -> Seen:
        """The window with what the baseline expects of it, if it works on such windows."""
        if self.model is None or seen.window_ms != self.model.head.step_ms:
            return seen
        usual = self.model.baseline.at(seen.start_ms, self.axis.daytime)
        return replace(seen, usual=usual)

    def _read(self, records: list[Effective]) -> Model:
        model = fit.read([r.body for r in records], self.axis.names)
        if model.digest != records[0].digest:
            raise InvalidInput("model", f"digest: is {model.digest}, said {records[0].digest}")
        if model.head.kind != self.kind.name or model.head.step_ms != self.kind.analysed_ms:
            raise InvalidInput(
                "model",
                f"model: of {model.head.kind} on {model.head.step_ms} ms, expected"
                f" {self.kind.name} on {self.kind.analysed_ms} ms",
            )
        return model
