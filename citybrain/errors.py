"""The error tree. A message names the field, the value, and what was expected.

Each class carries the exit code that the command line ends with, so that scripts can tell
a wrong setting from a broker that is away.
"""

import tomllib
from typing import ClassVar

import msgspec

JSON_ERRORS = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""All that msgspec raises on hostile JSON: wrong form, broken UTF-8, bottomless nesting."""

TOML_ERRORS = (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError)
"""All that tomllib raises on a file that is damaged, of another encoding, or bottomless."""


class CityBrainError(Exception):
    """Base of every error that a user can act on."""

    exit_code: ClassVar[int] = 1


class UsageError(CityBrainError):
    """A command, option or request that cannot be carried out as given."""

    exit_code = 2


class SetupError(CityBrainError):
    """Something that has to be installed, opened or freed first (a package, a port, a disk)."""

    exit_code = 3


class PackError(CityBrainError):
    """A city pack that does not hold together; says the file, the line and the field."""

    exit_code = 4


class BrokerError(CityBrainError):
    """The Kafka cluster cannot be reached, refuses us, or is not as the topic table says."""

    exit_code = 5


class SumError(CityBrainError):
    """Readings do not add up: produced is not the sum of where readings can be."""

    exit_code = 6


class InvalidInput(CityBrainError):
    """Input refused at a door. `reason` is a short stable word for counting (dead letters)."""

    exit_code = 7

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Refused(CityBrainError):
    """A command that the writer of that state turned down, with why."""

    exit_code = 8


class NoAnswer(CityBrainError):
    """A command was sent and nobody answered in time; it may still take effect."""

    exit_code = 9
