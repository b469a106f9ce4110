"""What a consumer of alerts is."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal
from urllib.parse import SplitResult

from citybrain.deliveries import Delivery

Outcome = Literal["delivered", "refused", "again", "unknown"]
"""again: it surely did not arrive, and later it may. unknown: it may have arrived."""


@dataclass(frozen=True, slots=True)
class Consumer:
    """check: raises ValueError with what an address lacks. tell: sends once, never raises for
    what the other side does."""

    check: Callable[[SplitResult], None]
    tell: Callable[[Delivery], tuple[Outcome, str]]
