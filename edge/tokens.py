"""Who may send: a token a gateway or device (`citybrain/grants.py` says how it is kept)."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from citybrain.grants import GrantBase, Grants


class Grant(GrantBase, frozen=True, kw_only=True):
    """What one token allows: send for a gateway, or (sensor given) for that sensor alone."""

    gateway: str
    sensor: str = ""


class Tokens:
    """The grants of `<data>/secrets/tokens.json`."""

    def __init__(self, data: Path) -> None:
        self._grants = Grants(data / "secrets" / "tokens.json", Grant)

    def add(self, gateway: str, sensor: str, now_ms: int) -> str:
        """A new token, shown this once. Raises SetupError if it cannot be stored."""
        return self._grants.add(now_ms, gateway=gateway, sensor=sensor)

    def revoke(self, gateway: str, sensor: str = "") -> int:
        """Take back the tokens of a gateway or of one sensor; returns how many there were."""
        return self._grants.revoke(lambda g: (g.gateway, g.sensor) == (gateway, sensor))

    @contextmanager
    def lent(self, gateway: str, now_ms: int) -> Iterator[str]:
        """A gateway's token that is good only while this lasts."""
        token = self.add(gateway, "", now_ms)
        name = token.split("_")[1]
        try:
            yield token
        finally:
            self._grants.revoke(lambda grant: grant.id == name)

    def check(self, token: str) -> Grant | None:
        """The grant of a token, None for one that is not known."""
        return self._grants.check(token)

    def grants(self) -> list[Grant]:
        """All grants, in the order in which they were given."""
        return self._grants.all()
