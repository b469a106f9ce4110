"""A tick of the signals stage for 500 signals: the built-in city's junctions, many times over.

Reports come as from the street, with queues that grow at red and leave at green, so that
every controller has something to decide. CPU time of this process, so that a busy machine
measures the same.
"""

import time
from collections.abc import Iterable
from dataclasses import replace

import msgspec
import numpy as np

from benchmarks.frame import Row, Size, of
from citybrain import pack, signal_log
from citybrain.city import City
from citybrain.edge.sequencer import Sequencer
from citybrain.signal_log import GATEWAY, Detections, Report, Tick
from citybrain.signals import Junction, Plan
from citybrain.stage import Record
from citybrain.streams.signals import Signals

SIGNALS = 500
_START_MS = 1_790_000_000_000


def tick(size: Size) -> Iterable[Row]:
    """Milliseconds of one core for a tick: decide for all signals and write their plans."""
    seconds = 60 if size == "small" else 300
    city = _city(SIGNALS)
    stage = Signals(city)
    street = _Street(city)
    ticks, reports, plans = [], [], 0
    for second in range(seconds):
        now = _START_MS + second * 1_000
        report = signal_log.encode(street.report(now, second))
        begin = time.process_time()
        stage.apply(Record("detector-states", 0, 2 * second, now, report))
        middle = time.process_time()
        record = Record(
            "detector-states", 0, 2 * second + 1, now, signal_log.encode(Tick(at_ms=now))
        )
        outs = stage.apply(record)
        end = time.process_time()
        plans += len(outs)
        street.follow([msgspec.json.decode(out.value, type=Plan) for out in outs])
        if second >= 10:  # queues have built up
            ticks.append((end - middle) * 1000)
            reports.append((middle - begin) * 1000)
    facts = {"signals": SIGNALS, "plans a tick": plans / seconds,
             "p95 ms": float(np.percentile(ticks, 95))}  # fmt: skip
    yield Row("signals, a tick", "ms", of(ticks), facts)
    yield Row("signals, a report", "ms", of(reports), {"signals": SIGNALS})


def _city(count: int) -> City:
    """The built-in city with its junctions repeated under other names."""
    city = pack.load("adlershof")
    own = list(city.signals.values())
    many = [_copy(own[i % len(own)], i // len(own)) for i in range(count)]
    return replace(city, signals={junction.id: junction for junction in many})


def _copy(junction: Junction, number: int) -> Junction:
    def named(name: str) -> str:
        return f"{name}~{number}"

    change = msgspec.structs.replace
    areas = [change(area, id=named(area.id)) for area in junction.areas]
    moves = [
        change(m, detectors=list(map(named, m.detectors)), exits=list(map(named, m.exits)))
        for m in junction.movements
    ]
    table = change(junction.table, junction=named(junction.id))
    return change(junction, id=named(junction.id), table=table, areas=areas, movements=moves)


class _Street:
    """Lamps by the sequencer; queues that random arrivals fill and green empties."""

    def __init__(self, city: City) -> None:
        self._junctions = list(city.signals.values())
        self._sequencers = {j.id: Sequencer(j, 0) for j in self._junctions}
        self._rng = np.random.default_rng(1)
        self._areas = [area.id for j in self._junctions for area in j.areas]
        self._waiting = dict.fromkeys(self._areas, 0.0)

    def follow(self, plans: Iterable[Plan]) -> None:
        for plan in plans:
            self._sequencers[plan.junction].aim(plan.stage)

    def report(self, now_ms: int, second: int) -> Report:
        up_ms = second * 1_000
        shown = []
        for junction in self._junctions:
            sequencer = self._sequencers[junction.id]
            lamps = {name: state.lamp for name, state in sequencer._groups.items()}
            sequencer.shown(up_ms, lamps | dict(sequencer.step(up_ms)))
            shown.append(sequencer.report(up_ms, now_ms, "adaptive"))
            for move in junction.movements:
                if not move.detectors:
                    continue
                lamp = sequencer._groups[move.group].lamp
                arrived = self._rng.random() < 0.12
                queue = self._waiting[move.detectors[0]] + arrived - 0.5 * (lamp == "green")
                self._waiting[move.detectors[0]] = min(7.0, max(0.0, queue))
        seen = [round(self._waiting[name]) for name in self._areas]
        detections = []
        if second % 5 == 0:
            detections = [
                Detections(at_ms=now_ms - 5_000, expires_ms=now_ms + 15_000,
                           detectors=self._areas, passed=seen, present=seen, waiting=seen)
            ]  # fmt: skip
        return Report(gateway=GATEWAY, at_ms=now_ms, shown=shown, detections=detections)
