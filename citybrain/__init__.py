"""A streaming engine for a city."""

__version__ = "0.1.0"
