"""The edge's books: after any crash they say again what the spool holds."""

import os
from collections import Counter
from collections.abc import Hashable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from citybrain.edge import journal
from citybrain.edge.frames import Entry
from citybrain.edge.journal import Ledger, Message, Party, Tally
from citybrain.edge.spool import Spool, SpoolFull

PARTIES: list[Party] = [("inc", "g1", "north"), ("inc", "g2", "south")]


class Station:
    """A spool and its ledger, used as the intake and the sender use them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.open()

    def open(self) -> None:
        self.ledger = Ledger()

        def visit(entry: Entry, acknowledged: int) -> Hashable:
            return self.ledger.recall(entry, journal.decode(entry.payload), acknowledged)

        self.spool = Spool(self.folder, 60_000, visit, segment_bytes=4_000)
        self.ledger.settle()
        assert not self.ledger.unexplained(self.spool.report.missing)
        self.ledger.incarnation = "inc"

    def store(self, readings: list[int], duplicates: int) -> None:
        """One flush: a message a number of readings, and some duplicates."""
        messages, changes, seqs = [], dict[Party, Counter[str]](), dict[Party, int]()
        for i, n in enumerate(readings):
            party = PARTIES[i % 2]
            seq = seqs.get(party, self.ledger.books(party).next_seq)
            seqs[party] = seq + 1
            messages.append(
                Message(topic="readings", key=b"", partition=0, value=bytes(40 * n), readings=n,
                        incarnation=party[0], gateway=party[1], shard=party[2], kind="k", seq=seq)
            )  # fmt: skip
            changes.setdefault(party, Counter())["produced"] += n
        changes.setdefault(PARTIES[0], Counter()).update(produced=duplicates, duplicate=duplicates)
        puts = [journal.put(message) for message in messages]
        dropping = self.spool.make_room(sum(len(p.payload) for p in puts) + 2_000)
        for dropped in dropping:
            for tally, n in dropped.tally.items():
                if isinstance(tally, Tally):
                    changes.setdefault(tally.party, Counter())["overflowed"] += n
        gaps = self.ledger.gaps_after(self.spool.saved) + [(d.first, d.last) for d in dropping]
        head = [journal.put(self.ledger.whole(gaps))] if self.spool.at_segment_start else []
        tail = journal.put(self.ledger.totals(messages, changes, seqs, gaps))
        self.spool.append([*head, *puts, tail], dropping)
        self.ledger.gaps = gaps
        for dropped in dropping:
            for tally, n in dropped.tally.items():
                if isinstance(tally, Tally):
                    self.ledger.books(tally.party).spooled -= n
        self.ledger.commit(messages, changes, seqs)

    def send(self, size: int) -> list[tuple[Party, int, int]]:
        entries = self.spool.read(size)
        sent = []
        for entry in entries:
            payload = journal.decode(entry.payload)
            if isinstance(payload, Message):
                self.ledger.sent(payload)
                sent.append((payload.party, payload.seq, payload.readings))
        if entries:
            self.spool.acknowledge(entries[-1].index)
        return sent

    def crash(self, saves: bool) -> None:
        if saves:
            self.spool.save_position()
        os.close(self.spool._guard)  # a dead process holds no lock
        self.open()

    def totals(self) -> Counter[str]:
        found: Counter[str] = Counter()
        for books in self.ledger.parties.values():
            found.update(books.account())
        return found


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("store"), st.lists(st.integers(1, 30), max_size=5), st.integers(0, 3)),
        st.tuples(st.just("send"), st.integers(1, 5_000)),
        st.tuples(st.just("crash"), st.booleans()),
    ),
    max_size=40,
)


@settings(max_examples=60, deadline=None)
@given(steps=STEPS)
def test_books_and_sequences_survive_crashes_and_overflow(
    steps: list[tuple[object, ...]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    station = Station(tmp_path_factory.mktemp("station"))
    stored = duplicates = 0
    arrived: dict[tuple[Party, int], int] = {}
    for step in [*steps, ("crash", False), ("send", 1_000_000)]:
        match step:
            case ("store", list(readings), int(again)):
                try:
                    station.store(readings, again)
                except SpoolFull:
                    continue
                stored += sum(readings)
                duplicates += again
            case ("send", int(size)):
                for party, seq, n in station.send(size):
                    assert arrived.setdefault((party, seq), n) == n, "a number stands for one batch"
            case ("crash", bool(saves)):
                station.crash(saves)
        totals = station.totals()
        assert totals["produced"] == stored + duplicates
        assert totals["duplicate"] == duplicates
        assert totals["overflowed"] + totals["spooled"] + totals["sent"] == stored
        assert min(totals.values(), default=0) >= 0
    totals = station.totals()
    assert totals["spooled"] == 0
    assert sum(arrived.values()) == totals["sent"]
