"""The consumer group: who has which partition, and how it is handed over."""

from typing import Any

from tests.simulated.broker import Place
from tests.simulated.worker import Worker


class Group:
    """One coordinator. A partition moves when its owner has let go, has died, or has been
    silent for too long: then the next owner begins while the old one still believes."""

    def __init__(self, world: Any, places: list[Place]) -> None:
        self.world = world
        self.members: list[Worker] = []
        self.owner: dict[Place, Worker | None] = dict.fromkeys(places)
        self._move: dict[Place, int] = dict.fromkeys(places, 0)

    def join(self, worker: Worker) -> None:
        """A worker takes part; what nobody has is given away."""
        self.members.append(worker)
        for place, owner in self.owner.items():
            if owner is None:
                self.move(place)
        self.rebalance()

    def leave(self, worker: Worker) -> None:
        """A worker takes part no longer."""
        if worker in self.members:
            self.members.remove(worker)
        for place, owner in self.owner.items():
            if owner is worker:
                self.owner[place] = None
                self.move(place)

    def rebalance(self) -> None:
        """Some partitions change hands."""
        for place in self.owner:
            if self.world.rng.random() < 0.5:
                self.move(place)

    def move(self, place: Place) -> None:
        """Take a partition from whoever has it and give it to somebody."""
        self._move[place] += 1
        number, old = self._move[place], self.owner[place]
        self.owner[place] = None
        loop = self.world.loop
        if old is None or old.process.dead:
            loop.outside(self._give, place, number)
            return
        # Asked to let go; or told only later, and not waited for.
        patient = not old.process.frozen and self.world.rng.random() < 0.7
        loop.spawn(old.process, self._let_go(old, place, number, patient))
        if not patient:
            loop.outside(self._give, place, number)

    async def _let_go(self, old: Worker, place: Place, number: int, patient: bool) -> None:
        if not patient:
            for _ in range(self.world.rng.randrange(30)):
                await self.world.loop.pause()
        await old._guard(old.revoked(place))
        if patient:
            self._give(place, number)

    def _give(self, place: Place, number: int) -> None:
        if number != self._move[place] or self.owner[place] is not None:
            return
        fit = [m for m in self.members if not m.process.dead and not m.process.frozen]
        if not fit:
            return  # whoever joins next gets it
        worker = self.world.rng.choice(fit)
        self.owner[place] = worker
        self.world.broker.generation[place] = number
        worker.run(worker.assigned(place, number))
