"""Who may send: a token a gateway or device, stored only as a salted hash.

A token is `cb_<id>_<secret>` with 256 random bits of secret, so one round of SHA-256 with a
salt is enough: there is nothing to guess. The file may change while an agent runs.
"""

import fcntl
import hashlib
import hmac
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from citybrain.errors import SetupError

VERSION = 1


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """What one token allows: send for a gateway, or (sensor given) for that sensor alone."""

    id: str
    gateway: str
    sensor: str = ""
    salt: str
    hash: str
    created_ms: int


class _File(msgspec.Struct, frozen=True, kw_only=True):
    version: int = VERSION
    grants: list[Grant] = []


class Tokens:
    """The grants of `<data>/secrets/tokens.json`."""

    def __init__(self, data: Path) -> None:
        self._path = data / "secrets" / "tokens.json"
        self._seen: tuple[int, int, int] | None = None
        self._grants: dict[str, Grant] = {}

    def add(self, gateway: str, sensor: str, now_ms: int) -> str:
        """A new token, shown this once. Raises SetupError if it cannot be stored."""
        name, secret, salt = secrets.token_hex(6), secrets.token_urlsafe(32), secrets.token_hex(16)
        grant = Grant(id=name, gateway=gateway, sensor=sensor, salt=salt,
                      hash=_hash(salt, secret), created_ms=now_ms)  # fmt: skip
        with self._writing() as grants:
            grants.append(grant)
        return f"cb_{name}_{secret}"

    def revoke(self, gateway: str, sensor: str = "") -> int:
        """Take back the tokens of a gateway or of one sensor; returns how many there were."""
        with self._writing() as grants:
            kept = [g for g in grants if (g.gateway, g.sensor) != (gateway, sensor)]
            gone = len(grants) - len(kept)
            grants[:] = kept
        return gone

    def check(self, token: str) -> Grant | None:
        """The grant of a token, None for one that is not known."""
        self._load()
        prefix, _, rest = token.partition("_")
        name, _, secret = rest.partition("_")
        grant = self._grants.get(name)
        # The same work for a name that is not known: an answer's time tells nothing.
        salt, wanted = (grant.salt, grant.hash) if grant else ("", "0" * 64)
        matches = hmac.compare_digest(_hash(salt, secret), wanted)
        return grant if grant and matches and prefix == "cb" else None

    def grants(self) -> list[Grant]:
        """All grants, in the order in which they were given."""
        self._load()
        return list(self._grants.values())

    def _load(self) -> None:
        try:
            stat = self._path.stat()
        except FileNotFoundError:
            self._grants, self._seen = {}, None
            return
        seen = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        if seen != self._seen:
            self._grants = {grant.id: grant for grant in self._read()}
            self._seen = seen

    def _read(self) -> list[Grant]:
        try:
            file = msgspec.json.decode(self._path.read_bytes(), type=_File)
        except FileNotFoundError:
            return []
        except (OSError, msgspec.MsgspecError) as error:
            raise SetupError(f"tokens: {self._path}: {error}") from error
        if file.version != VERSION:
            raise SetupError(f"tokens: {self._path}: version {file.version} is not {VERSION}")
        return file.grants

    @contextmanager
    def _writing(self) -> Iterator[list[Grant]]:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with (self._path.parent / "lock").open("w") as guard:
                fcntl.flock(guard, fcntl.LOCK_EX)
                grants = self._read()
                yield grants
                new = self._path.with_suffix(".new")
                descriptor = os.open(new, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
                with os.fdopen(descriptor, "wb") as file:
                    file.write(msgspec.json.format(msgspec.json.encode(_File(grants=grants))))
                    file.flush()
                    os.fsync(file.fileno())
                new.replace(self._path)
        except OSError as error:
            raise SetupError(f"tokens: {self._path}: {error}") from error


def _hash(salt: str, secret: str) -> str:
    return hashlib.sha256(f"{salt}:{secret}".encode()).hexdigest()
