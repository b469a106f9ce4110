"""The horizon controller's model, played through for many junctions at once.

What a junction's queues would cost over the next minute for each "stay for h seconds, then go
to stage k", with a plain exhaustive rule afterwards. A numpy call costs about as much for
thirty junctions as for one, so those of like shape are stacked: (junctions, candidates,
movements). A junction alone is a stack of one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from citybrain.models.signals.base import Row

BIN_S, BINS = 3, 20
"""The model's step and how many of them."""
MIN_GREEN_S, MAX_GREEN_S = 5.0, 20
"""Of a stage in the model's plain rule."""
_GONE = 1.0  # fewer vehicles than this are no queue
_HELD = 0.8  # share of its flow that a permitted turn loses while opponents flow
_WIDTH = 6  # movements are filled up to a multiple of this, so that more junctions are alike

Index = npt.NDArray[np.intp]


@dataclass(slots=True, kw_only=True)
class Task:
    """One junction's question. K stages, M movements, C candidates.

    queue, weight: (M,). arrivals: (M, BINS). rates, yields: (K, M), vehicles a bin and how much
    of each gives way. foes: (M, M), opponents by movement. change: (K, K) and ready: (K,), s.
    useful: (K, M), weight where a stage serves. now: the stage shown, for stage_s. holds, nexts:
    (C,), s and stages.
    """

    queue: Row
    weight: Row
    arrivals: Row
    rates: Row
    yields: Row
    foes: Row
    change: Row
    ready: Row
    useful: Row
    now: int
    stage_s: float
    holds: Index
    nexts: Index


def costs(tasks: Sequence[Task]) -> list[Row]:
    """For each task, vehicle seconds of waiting by candidate over the horizon."""
    alike: dict[tuple[int, int, int], list[int]] = {}
    for number, task in enumerate(tasks):
        stages, moves = task.rates.shape
        width = -(-moves // _WIDTH) * _WIDTH
        alike.setdefault((stages, width, len(task.holds)), []).append(number)
    found: list[Row] = [np.zeros(0)] * len(tasks)
    for (_, width, _), numbers in alike.items():
        for number, cost in zip(numbers, _play([tasks[n] for n in numbers], width), strict=True):
            found[number] = cost
    return found


def _play(tasks: Sequence[Task], width: int) -> Row:
    """(junctions, candidates). All tasks have as many stages and candidates."""
    count, candidates = len(tasks), len(tasks[0].holds)
    stages = len(tasks[0].rates)
    weight = _stacked([task.weight for task in tasks], (width,))
    arrivals = _stacked([task.arrivals for task in tasks], (width, BINS))
    # Row j * stages + k belongs to stage k of junction j.
    rates = _stacked([task.rates for task in tasks], (stages, width)).reshape(-1, width)
    yields = _stacked([task.yields for task in tasks], (stages, width)).reshape(-1, width)
    foes = _stacked([task.foes for task in tasks], (width, width))
    gives_way = bool(yields.any())
    useful = _stacked([task.useful for task in tasks], (stages, width)).transpose(0, 2, 1)
    changes = np.array([task.change for task in tasks]) / BIN_S
    ready = np.array([task.ready for task in tasks]) / BIN_S
    nexts = np.array([task.nexts for task in tasks])
    hold = np.ceil(np.array([task.holds for task in tasks]) / BIN_S).astype(int)
    queue = _stacked([task.queue for task in tasks], (width,))[:, None, :].repeat(
        candidates, axis=1
    )
    lines = np.arange(count)[:, None]
    base = lines * stages
    stage = np.repeat(np.array([[task.now] for task in tasks]), candidates, axis=1)
    source = stage
    change = np.zeros((count, candidates))  # bins of change that are left
    shown = np.repeat(np.array([[task.stage_s / BIN_S] for task in tasks]), candidates, axis=1)
    total = np.zeros((count, candidates))
    for t in range(BINS):
        coming = arrivals[:, None, :, t]
        queue += coming
        pressure = queue @ useful
        own = np.take_along_axis(pressure, stage[:, :, None], 2)[:, :, 0]
        spent = (own < _GONE) | (shown * BIN_S >= MAX_GREEN_S)
        spent &= (shown * BIN_S >= MIN_GREEN_S) & (change <= 0)
        np.put_along_axis(pressure, stage[:, :, None], 0.0, 2)
        rival = pressure.argmax(axis=2)
        leave = (hold <= t) & spent & (pressure.max(axis=2) > own)
        goes = hold == t
        target = np.where(goes, nexts, rival)
        leave |= goes
        took = ready[lines, target] if t == 0 else changes[lines, stage, target]
        source = np.where(leave, stage, source)
        stage = np.where(leave, target, stage)
        change = np.where(leave, took, change)
        part = np.clip(1.0 - change, 0.0, 1.0)
        capacity = rates.take(base + stage, axis=0)
        if (part < 1.0).any():
            # While it changes, only what is green before and after flows.
            both = np.minimum(rates.take(base + source, axis=0), capacity)
            both -= capacity
            both *= (1.0 - part)[:, :, None]
            capacity += both
        if gives_way:
            pressed = np.minimum(1.0, (queue + coming) @ foes)
            pressed *= yields.take(base + stage, axis=0)
            pressed *= -_HELD
            pressed += 1.0
            capacity *= pressed
        queue -= np.minimum(queue, capacity)
        total += (queue @ weight[:, :, None])[:, :, 0]
        shown = np.where(leave, 0.0, shown + part)
        change = np.maximum(change - 1.0, 0.0)
    return total * BIN_S


def _stacked(rows: Sequence[Row], shape: tuple[int, ...]) -> Row:
    """Arrays one above the other, filled up with zeros to a shape."""
    out = np.zeros((len(rows), *shape))
    for into, row in zip(out, rows, strict=True):
        into[tuple(map(slice, row.shape))] = row
    return out
