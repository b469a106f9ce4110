"""What responders' terminals say at the edge, and what they are told."""

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from citybrain import emergency, signal_log
from citybrain.edge.relay import Relay
from citybrain.emergency import Order, Position
from citybrain.errors import InvalidInput
from citybrain.kafka import KafkaSettings
from citybrain.signal_log import GATEWAY, Report

T0 = 1_790_000_000_000


def order(number: int, revision: int = 0, **facts: object) -> Order:
    told: dict[str, object] = {
        "id": f"i{number}/amb-1/1", "revision": revision, "incident": f"i{number}",
        "responder": "amb-1", "need": "ambulance", "state": "sent", "why": "", "route": ["a"],
        "goal_m": 1.0, "eta_ms": T0, "first_eta_ms": T0, "sent_ms": T0 + number, "at_ms": T0,
        "live": 0.0, "times_age_ms": None,
    }  # fmt: skip
    return Order(**(told | facts))  # type: ignore[arg-type]  # fields by name


@pytest.fixture
def relay() -> Relay:
    """Not connected: what it takes is counted and dropped."""
    kafka = KafkaSettings(bootstrap="127.0.0.1:1")
    return Relay("small", [], kafka, CollectorRegistry(), lambda: T0, ["amb-1"])


def report(responder: str) -> bytes:
    position = Position(responder=responder, at_ms=T0, lon=13.5, lat=52.4, status=3)
    return signal_log.encode(Report(gateway=GATEWAY, at_ms=T0, positions=[position]))


async def test_a_position_of_nobody_in_the_pack_is_refused_with_the_name(relay: Relay) -> None:
    with pytest.raises(InvalidInput, match="responder: 'ghost' is not in the pack"):
        await relay.exchange(report("ghost"), 0)


async def test_a_terminal_is_told_the_newest_order_of_its_responder(relay: Relay) -> None:
    for one in (order(2), order(2, 1, route=["a", "b"]), order(1, 5), order(2)):
        relay._dispatch(emergency.encode(one))
    relay._dispatch(None)
    told = await relay.exchange(report("amb-1"), 0)
    assert [(o.id, o.revision) for o in told.dispatches] == [("i2/amb-1/1", 1)]


def test_an_order_survives_the_wire_whole() -> None:
    told = order(1, degraded="no position since 40 s")
    assert msgspec.json.decode(emergency.encode(told), type=Order) == told
