"""Secrets that were given out: a file of grants, each stored only as a salted hash.

A token is `cb_<id>_<secret>` with 256 random bits of secret, so one round of SHA-256 with a
salt is enough: there is nothing to guess. The file may change while a process reads it.
"""

import fcntl
import hashlib
import hmac
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec

from citybrain.errors import SetupError

VERSION = 1


class GrantBase(msgspec.Struct, frozen=True, kw_only=True):
    """What every grant keeps of its token."""

    id: str
    salt: str
    hash: str
    created_ms: int


class _File(msgspec.Struct, frozen=True, kw_only=True):
    version: int = VERSION
    grants: list[Any] = []


_G = TypeVar("_G", bound=GrantBase)


class Grants(Generic[_G]):
    """The grants of one file, of one form. Only its owner can read the file."""

    def __init__(self, path: Path, form: type[_G]) -> None:
        self._path = path
        self._form = form
        self._seen: tuple[int, int, int] | None = None
        self._grants: dict[str, _G] = {}

    def add(self, now_ms: int, **facts: Any) -> str:
        """A new token for a grant with these facts, shown this once.

        Raises SetupError if it cannot be stored.
        """
        name, secret, salt = secrets.token_hex(6), secrets.token_urlsafe(32), secrets.token_hex(16)
        grant = self._form(id=name, salt=salt, hash=_hash(salt, secret), created_ms=now_ms, **facts)
        with self._writing() as grants:
            grants.append(grant)
        return f"cb_{name}_{secret}"

    def revoke(self, which: Callable[[_G], bool]) -> int:
        """Take back the tokens of some grants; returns how many there were."""
        with self._writing() as grants:
            kept = [grant for grant in grants if not which(grant)]
            gone = len(grants) - len(kept)
            grants[:] = kept
        return gone

    def check(self, token: str) -> _G | None:
        """The grant of a token, None for one that is not known."""
        self._load()
        prefix, _, rest = token.partition("_")
        name, _, secret = rest.partition("_")
        grant = self._grants.get(name)
        # The same work for a name that is not known: an answer's time tells nothing.
        salt, wanted = (grant.salt, grant.hash) if grant else ("", "0" * 64)
        matches = hmac.compare_digest(_hash(salt, secret), wanted)
        return grant if grant and matches and prefix == "cb" else None

    def all(self) -> list[_G]:
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

    def _read(self) -> list[_G]:
        try:
            file = msgspec.json.decode(self._path.read_bytes(), type=_File)
            grants = [msgspec.convert(grant, self._form) for grant in file.grants]
        except FileNotFoundError:
            return []
        except (OSError, msgspec.MsgspecError) as error:
            raise SetupError(f"tokens: {self._path}: {error}") from error
        if file.version != VERSION:
            raise SetupError(f"tokens: {self._path}: version {file.version} is not {VERSION}")
        return grants

    @contextmanager
    def _writing(self) -> Iterator[list[_G]]:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with (self._path.parent / "lock").open("w") as guard:
                fcntl.flock(guard, fcntl.LOCK_EX)
                grants = self._read()
                yield grants
                told = msgspec.json.encode(_File(grants=grants))
                write_private(self._path, msgspec.json.format(told))
        except OSError as error:
            raise SetupError(f"tokens: {self._path}: {error}") from error


def write_private(path: Path, data: bytes) -> None:
    """Write a file that only its owner can read, whole or not at all. Raises OSError."""
    new = path.with_suffix(".new")
    descriptor = os.open(new, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


def _hash(salt: str, secret: str) -> str:
    return hashlib.sha256(f"{salt}:{secret}".encode()).hexdigest()
