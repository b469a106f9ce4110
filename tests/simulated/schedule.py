"""One schedule: everything is drawn from its seed, played to the end, and judged."""

import hashlib
import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiokafka.errors import CommitFailedError, KafkaError, KafkaTimeoutError, ProducerFenced

from citybrain.streams import outputs, snapshots
from citybrain.topics import TOPICS, full_name
from tests.simulated import faults
from tests.simulated.broker import Broker, Log, Place
from tests.simulated.cases import Case
from tests.simulated.clients import Consumer, Producer
from tests.simulated.group import Group
from tests.simulated.loop import Loop, Process
from tests.simulated.worker import Engine, Worker


class OnPurpose(Exception):
    """What a stage raises at a record that it was told to choke on."""


_EXPECTED = (ProducerFenced, KafkaTimeoutError, CommitFailedError, OnPurpose)
"""Ends of processes that are part of the game; anything else is a finding."""


@dataclass
class World:
    """Everything that outlives a process, and the processes."""

    case: Case
    engine: Engine
    seed: int
    workers_at_first: int = 2
    fence: bool = True
    drawn: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.loop = Loop(self.rng)
        self.now_ms = self.case.entries[0].at_ms
        self.broker = Broker(self.loop, lambda: self.now_ms, self.fence)
        self.group = Group(self, self.engine.places())
        self.workers: list[Worker] = []
        self.error: BaseException | None = None
        self.retention = self.kill_at_commit = False
        self.slow_until = self.kill_while_waiting = 0
        self.happened: list[tuple[int, str]] = []
        self.choked: set[bytes] = set()
        city = self.engine.city.id
        self.compacted = {full_name(city, n) for n, t in TOPICS.items() if t.compact}
        self._next = 0
        self._plan = self._draw()

    def play(self) -> None:
        """Until everything is read, saved and acknowledged. Raises what must not happen."""
        with _simulated_clients():
            for _ in range(self.workers_at_first):
                self.launch()
            self.loop.outside(self._produce)
            self.loop.run(self._each)
            if self.error is not None:
                raise self.error
            self._plan = []
            self.broker.time_outs = 0
            self.kill_at_commit, self.kill_while_waiting = False, 0
            # A process that was stopped in time for a takeover can still be asked for more.
            for _ in range(50):
                self._settle()
                if self._finished() or self.error is not None:
                    break
            else:
                raise AssertionError(f"not finished: {self._left()}")
            for worker in self.up():
                worker.run(worker.leave())
            self.loop.run(self._each)
        if self.error is not None:
            raise self.error

    def _settle(self) -> None:
        for worker in self.workers:
            if worker.process.frozen:
                self.loop.wake(worker.process)
        if not self.up():
            self.launch()
        for place, owner in self.group.owner.items():
            if owner is None or owner.process.dead or place not in owner.shells:
                self.group.move(place)
        self.now_ms += 20_000
        for worker in self.up():
            worker.run(worker.tick())
        self.loop.run(self._each)

    def _left(self) -> list[Place]:
        """Partitions of which something is not yet part of a durable state."""
        left = []
        for place, owner in self.group.owner.items():
            shell = owner.shells.get(place) if owner is not None else None
            log = self.broker.log(place)
            saved = log.start if shell is None or shell.saved_offset is None else shell.saved_offset
            if log.next(saved) is not None or (shell is not None and shell._held):
                left.append(place)
        return left

    def _finished(self) -> bool:
        return not self._left() and self._next == len(self.case.entries)

    def up(self) -> list[Worker]:
        """Workers that live and run."""
        return [w for w in self.workers if not w.process.dead and not w.process.frozen
                and not w.stopping]  # fmt: skip

    def launch(self) -> None:
        """Start a worker."""
        process = Process(f"w{len(self.workers)}", self)
        worker = Worker.__new__(Worker)
        process.context.run(worker.__init__, process, self.engine)  # type: ignore[misc]  # its locks and clients belong to the process
        self.workers.append(worker)
        worker.run(worker.start())

    def kill(self, worker: Worker) -> None:
        """End a process at once; its supervisor starts another."""
        worker.process.dead = True
        for producer in worker.process.producers:
            producer.die()
        self.group.leave(worker)
        if len(self.up()) < self.workers_at_first:
            self.loop.outside(self.launch)

    def freeze(self, worker: Worker) -> None:
        """Stop a process for a while that is long enough for its partitions to be taken."""
        worker.process.frozen = True
        self.group.leave(worker)
        self.loop.outside(self._thaw, worker, self.rng.randrange(200))

    def _thaw(self, worker: Worker, patience: int) -> None:
        if patience > 0 and self.loop.busy:
            self.loop.outside(self._thaw, worker, patience - 1)
        elif worker.process.frozen:
            self.loop.wake(worker.process)
            # It takes part again, and hears what it has lost.
            self.group.members.append(worker)
            for place in list(worker.shells):
                if self.group.owner.get(place) is not worker:
                    worker.run(worker.revoked(place))

    def stop(self, worker: Worker) -> None:
        """SIGTERM."""

        async def leave() -> None:
            await worker.leave()
            self.kill(worker)

        worker.run(leave())

    def fail(self, worker: Worker, error: Exception) -> None:
        """A process has ended by itself."""
        expected = isinstance(error, _EXPECTED) or isinstance(error.__cause__, KafkaError)
        if not expected and self.error is None:
            self.error = error
            self.loop.halt()
        if not worker.process.dead:
            self.kill(worker)

    def acknowledged(self, place: Place) -> None:
        """Retention may follow what was acknowledged, as long as nobody is frozen or only just
        opening that still stands before it: it is a matter of days."""
        if not self.retention:
            return
        until = [self.broker.acknowledged.get(place, 0)]
        for worker in self.workers:
            if not worker.process.dead:
                shell = worker.shells.get(place)
                until.append(worker.reading.get(place, until[0]))
                if shell is not None:
                    until.append(shell.next_offset or 0)
        self.broker.log(place).drop_before(min(until))

    def committed(self, process: Process) -> None:
        """A transaction of a process was committed just now."""
        waiting = sum(producer.waiting for producer in process.producers)
        if self.kill_at_commit or 0 < self.kill_while_waiting <= waiting:
            self.kill_at_commit, self.kill_while_waiting = False, 0
            self.kill(next(w for w in self.workers if w.process is process))

    def choke(self, value: bytes, always: bool) -> None:
        """Raise at a record: each time, or the first time only."""
        if always or value not in self.choked:
            self.choked.add(value)
            self.drawn["poison" if always else "failure that passes"] += 1
            raise OnPurpose("always" if always else "once")

    def _draw(self) -> list[tuple[int, str, faults.Fault]]:
        """Faults with the steps at which they come, last first."""
        fair = dict(faults.ALWAYS)
        fair |= self.rng.choice((faults.KEEPS_NOTHING, faults.LOSES_STATE))
        length = 13 * len(self.case.entries) * len(self.engine.stages)
        names = self.rng.choices(sorted(fair), k=self.rng.randint(1, 8))
        if "retention" in fair and self.rng.random() < 0.5:
            names.append("retention")
        plan = [(self.rng.randrange(length), name, fair[name]) for name in names]
        return sorted(plan, key=lambda p: (-p[0], p[1]))

    def _each(self) -> None:
        self.now_ms += 1
        while self._plan and self.loop.steps >= self._plan[-1][0]:
            _, name, fault = self._plan.pop()
            if name != "time-out, arrived":
                self.drawn[name] += 1
            self.happened.append((self.loop.steps, name))
            fault(self)
        if self.rng.random() < 0.02 and self.loop.busy:
            up = self.up()
            if up:
                worker = self.rng.choice(up)
                worker.run(worker.tick())

    def _produce(self) -> None:
        """The next records of the readings log, now and then in a transaction."""
        entries = self.case.entries
        for _ in range(self.rng.randint(1, 3)):
            if self._next == len(entries):
                return
            entry = entries[self._next]
            self._next += 1
            self.now_ms = max(self.now_ms, entry.at_ms)
            log = self.broker.log((full_name(self.engine.city.id, "readings"), entry.partition))
            log.append(entry.at_ms, None, entry.value, entry.headers)
            if self.rng.random() < 0.05:
                log.append(self.now_ms, None, None, marker=True)
        self.loop.outside(self._produce)

    def digest(self) -> str:
        """Everything that was ever written, as one number: the same for the same seed."""
        whole = hashlib.sha256()
        for place, log in sorted(self.broker.logs.items()):
            for entry in log.dropped + log.entries:
                whole.update(repr((place, entry.offset, entry.key, entry.value)).encode())
        return whole.hexdigest()[:16]

    def topic(self, name: str) -> list[Log]:
        """The logs of a topic."""
        whole = full_name(self.engine.city.id, name)
        return [log for place, log in sorted(self.broker.logs.items()) if place.topic == whole]


@contextmanager
def _simulated_clients() -> Iterator[None]:
    """The engine's own store and outputs, on the simulated broker."""
    kept: list[tuple[Any, str, Any]] = []
    for module, name, new in (
        (snapshots, "AIOKafkaProducer", Producer),
        (snapshots, "AIOKafkaConsumer", Consumer),
        (outputs, "AIOKafkaProducer", Producer),
    ):
        kept.append((module, name, getattr(module, name)))
        setattr(module, name, new)
    try:
        yield
    finally:
        for module, name, old in kept:
            setattr(module, name, old)


Judge = Callable[[World], None]
