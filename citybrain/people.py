"""Who may give commands over HTTP: a token a person or program, with a role.

The first start of the centre makes a token for whoever owns the data folder: that person may
do everything at the terminal anyway. It stands in `<data>/secrets/owner.token`, which nobody
else can read; the others are stored only as hashes.
"""

import getpass
import os
from pathlib import Path
from typing import Literal, get_args

from citybrain.errors import SetupError, UsageError
from citybrain.grants import GrantBase, Grants, write_private

Role = Literal["operator", "supervisor"]
"""An operator works alerts; a supervisor also changes what is looked for (rules, sensors)."""

OWNER_TOKEN = "owner.token"


def owner_name() -> str:
    """The name of the person at this machine, `owner` where the system has none."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "owner"


class Person(GrantBase, frozen=True, kw_only=True):
    """Whom a token stands for: the name under which commands are given."""

    name: str
    role: Role

    def may(self, role: Role) -> bool:
        """Whether this person's role includes another."""
        roles = get_args(Role)
        return bool(roles.index(self.role) >= roles.index(role))


class People:
    """The grants of `<data>/secrets/people.json`."""

    def __init__(self, data: Path) -> None:
        self._folder = data / "secrets"
        self._grants = Grants(self._folder / "people.json", Person)

    def add(self, name: str, role: str, now_ms: int) -> str:
        """A new token, shown this once. Raises UsageError, or SetupError if it cannot be kept."""
        if not name.strip() or len(name) > 100 or not name.isprintable():
            raise UsageError(f"name: {name!r}: expected 1 to 100 printable characters")
        if role not in get_args(Role):
            raise UsageError(f"role: {role!r} is not one of {', '.join(get_args(Role))}")
        return self._grants.add(now_ms, name=name, role=role)

    def revoke(self, name: str) -> int:
        """Take back the tokens of a person; returns how many there were."""
        return self._grants.revoke(lambda person: person.name == name)

    def check(self, token: str) -> Person | None:
        """Whose token it is, None for one that is not known."""
        return self._grants.check(token)

    def all(self) -> list[Person]:
        """Everybody who has a token, in the order in which they got it."""
        return self._grants.all()

    def owner_token(self, name: str, now_ms: int) -> str:
        """The token of the data folder's owner; made anew if there is none that works.

        Raises SetupError if it cannot be read or stored.
        """
        path = self._folder / OWNER_TOKEN
        try:
            token = path.read_text("ascii").strip() if path.is_file() else ""
            if self.check(token) is None:
                token = self.add(name, "supervisor", now_ms)
                write_private(path, token.encode() + b"\n")
            elif path.stat().st_mode & 0o077:
                # Somebody has copied the folder without its modes.
                os.chmod(path, 0o600)
        except (OSError, UnicodeDecodeError) as error:
            raise SetupError(f"tokens: {path}: {error}") from error
        return token
