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

_LAYOUTS = 64


class Series:
    """Sensors in the order of the pack's roster. `pending` and `active` are model records."""

    def __init__(self, kind: Kind, axis: Axis) -> None:
        self.kind = kind
        self.axis = axis
        self.model: Model | None = None
        self.active: list[Effective] = []
        self.pending: list[Effective] = []
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

        Raises InvalidInput `model` if it is damaged, of other sensors' kind or another window.
        """
        if self.pending and self.pending[0].digest != record.digest:
            self.pending, self._next = [], None
        self.pending = [r for r in self.pending if r.part != record.part] + [record]
        if len(self.pending) < record.parts:
            return
        self.pending.sort(key=lambda r: r.part)
        try:
            self._next = self._read(self.pending)
        except InvalidInput:
            self.pending = []
            raise

    def switch(self, start_ms: int) -> bool:
        """Go over to the waiting model if the window at `start_ms` is its first."""
        if self._next is None or start_ms < self.pending[0].from_ms:
            return False
        self.model, self.active = self._next, self.pending
        self._next, self.pending = None, []
        return True

    def recall(self, active: list[Effective], pending: list[Effective]) -> None:
        """Become the state of these records."""
        self.active, self.pending = active, pending
        self.model = self._read(active) if active else None
        if pending and len(pending) == pending[0].parts:
            self._next = self._read(pending)

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
