"""An agent whose clock was wrong for a while: what it said then binds nobody for long."""

import pyarrow as pa
import pytest

from citybrain.city import City
from citybrain.edge import forms
from citybrain.edge.journal import Ledger
from citybrain.edge.merge import Merger, Request
from citybrain.edge.validate import Tolerance, Validator
from citybrain.kinds import HOUR, SECOND
from citybrain.pack import load
from tests.packs import write_pack

NOW = 1_700_000_000_000


@pytest.fixture
def city(tmp_path_factory: pytest.TempPathFactory) -> City:
    return load(str(write_pack(tmp_path_factory.mktemp("pack"))))


class Agent:
    """Merges one reading of `d1` at a time and keeps the books of it."""

    def __init__(self, city: City) -> None:
        self.ledger = Ledger()
        self.ledger.incarnation = "i"
        self._validator = Validator(city, Tolerance(60 * SECOND, 24 * HOUR))
        self._merger = Merger(self._validator, self.ledger, 5_000)

    def watermark_at(self, clock_ms: int) -> int:
        """The watermark of a batch that is merged now."""
        columns = {"sensor": ["d1"], "kind": ["vehicle_count"], "time": [clock_ms], "value": [1.0]}
        table = pa.table(columns)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        body = sink.getvalue().to_pybytes()
        rows = forms.parse(body, forms.ARROW, self._validator.layout)
        merged = self._merger.merge([Request("g1", rows, "live", clock_ms)], clock_ms)
        self.ledger.commit(merged.messages, merged.changes, merged.seqs)
        (message,) = merged.messages
        return message.watermark_ms


def test_a_clock_that_was_an_hour_ahead_does_not_blind_the_gateway_for_that_hour(
    city: City,
) -> None:
    agent = Agent(city)
    assert agent.watermark_at(NOW + HOUR) == NOW + HOUR - 5_000
    assert agent.watermark_at(NOW) == NOW - 5_000
    assert agent.watermark_at(NOW + SECOND) == NOW + SECOND - 5_000


def test_a_clock_that_steps_back_a_little_takes_no_word_back(city: City) -> None:
    agent = Agent(city)
    assert agent.watermark_at(NOW) == NOW - 5_000
    assert agent.watermark_at(NOW - SECOND) == NOW - 5_000
