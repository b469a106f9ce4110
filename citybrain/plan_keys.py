"""The secret that plans are signed with: `<data>/secrets/signals.key`, made where it is missing.

The signals stage's worker signs, the arbiters at the street check. On several machines the
file is copied from one to the others.
"""

import os
import secrets
from collections.abc import Callable
from pathlib import Path

import msgspec

from citybrain.errors import SetupError
from citybrain.signals import Plan, signed

_BYTES = 32


def key(data: Path) -> bytes:
    """The secret of a data folder. Raises SetupError if the file cannot be had or is too short."""
    path = data / "secrets" / "signals.key"
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not path.is_file():
            draft = path.with_name(f"signals.{os.getpid()}.new")
            descriptor = os.open(draft, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(secrets.token_hex(_BYTES))
            # Another process may be at the same: whoever links first has made it.
            try:
                os.link(draft, path)
            except FileExistsError:
                pass
            finally:
                draft.unlink()
        text = path.read_text("ascii").strip()
        found = bytes.fromhex(text)
    except (OSError, ValueError) as error:
        raise SetupError(f"signals key: {path}: {error}") from error
    if len(found) < _BYTES:
        raise SetupError(f"signals key: {path}: {len(found)} bytes, expected {_BYTES} in hex")
    return found


def sealed(data: Path) -> Callable[[bytes], bytes]:
    """Signs the JSON of a plan; the key is read when the first one is."""
    known: list[bytes] = []

    def seal(value: bytes) -> bytes:
        if not known:
            known.append(key(data))
        return msgspec.json.encode(signed(known[0], msgspec.json.decode(value, type=Plan)))

    return seal
