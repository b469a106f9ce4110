"""The states of a responder's mission, as one table; what is not in it cannot happen.

      send          arrive            load                deliver
free ------> sent ---------> on-scene ------> transporting ---------> free
 ^            |  \\___________________________/^     |
 |  recall    |  load (a patient met on the way)     |
 +------------+------------ clear -------------------+
"""

from typing import Literal

from citybrain.emergency import Status
from citybrain.errors import Refused

Event = Literal["send", "arrive", "load", "clear", "deliver", "recall", "lose", "leave", "return"]

TABLE: dict[tuple[Status, Event], Status] = {
    ("free", "send"): "sent",
    ("free", "leave"): "out",
    ("sent", "arrive"): "on-scene",
    ("sent", "load"): "transporting",
    ("sent", "recall"): "free",
    ("sent", "lose"): "out",
    ("sent", "leave"): "out",
    ("on-scene", "load"): "transporting",
    ("on-scene", "clear"): "free",
    ("on-scene", "leave"): "out",
    ("transporting", "deliver"): "free",
    ("transporting", "leave"): "out",
    ("out", "return"): "free",
}
"""(status, event) -> status afterwards."""


def after(responder: str, status: Status, event: Event) -> Status:
    """The next status. Raises Refused naming what is possible instead."""
    found = TABLE.get((status, event))
    if found is None:
        possible = sorted(e for s, e in TABLE if s == status)
        raise Refused(f"{responder} is {status}: {event} is not possible, only {possible}")
    return found
