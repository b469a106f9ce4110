"""Structured logs on stderr: for people on a terminal, one JSON object a line elsewhere."""

import logging
import os
import sys
import time
from collections.abc import Callable
from typing import TextIO

import structlog


def _is_startup(record: logging.LogRecord) -> bool:
    """Kafka's client on a partition whose leader is being chosen: it asks again by itself."""
    said = record.args if isinstance(record.args, tuple) else ()
    return any(type(word).__name__ == "NotLeaderForPartitionError" for word in said)


class Repeats(logging.Filter):
    """Lets what a library says over and over through once in `every_s`, with how often it was.

    Kafka's client says a thousand times a second that a broker is away.
    """

    def __init__(self, every_s: float = 10.0, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._every_s, self._clock = every_s, clock
        self._said: dict[tuple[str, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to let it through."""
        if _is_startup(record):
            return False
        key, now = (record.name, str(record.msg)), self._clock()
        last, held = self._said.get(key, (-self._every_s, 0))
        if now - last < self._every_s:
            self._said[key] = (last, held + 1)
            return False
        if held:
            record.msg = f"{record.msg} (and {held} times more)"
        self._said[key] = (now, 0)
        return True


class Steady:
    """A stream for logs that never ends its process: logs often lie on the disk that is full.

    What cannot be written is counted, and that is said as soon as writing works again.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.lost = 0

    def write(self, text: str) -> int:
        """As a text stream; how much was written."""
        try:
            if self.lost:
                self._stream.write(f"{self.lost} writes to this log were lost\n")
                self._stream.flush()
                self.lost = 0
            return self._stream.write(text)
        except OSError:
            self.lost += 1
            return 0

    def flush(self) -> None:
        """As a text stream."""
        try:
            self._stream.flush()
        except OSError:
            self.lost += 1


def configure(process: str, level: str = "") -> None:
    """Set up logging of this process; `process` is on every line.

    level: without one `info`, or `debug` if CITYBRAIN_DEBUG is set.
    """
    level = level or ("debug" if os.environ.get("CITYBRAIN_DEBUG") else "info")
    number = logging.getLevelNamesMapping()[level.upper()]

    def named(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        # Not a context variable: libraries log from threads and tasks of their own.
        event.setdefault("process", process)
        return event

    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        named,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer()
        if sys.stderr.isatty()
        else structlog.processors.JSONRenderer(ensure_ascii=False)
    )
    tracebacks = (
        [] if sys.stderr.isatty() else [structlog.processors.format_exc_info]
    )  # the console shows them in its own way
    structlog.configure(
        processors=[*shared, *tracebacks, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(Steady(sys.stderr)),  # type: ignore[arg-type]  # print needs write and flush
    )
    # Libraries speak through the standard module: same stream, same form.
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processor=renderer, foreign_pre_chain=[*shared, *tracebacks]
        )
    )
    handler.addFilter(Repeats())
    logging.basicConfig(level=max(number, logging.WARNING), handlers=[handler], force=True)


def get(name: str) -> structlog.typing.FilteringBoundLogger:
    """A logger that names its module."""
    logger: structlog.typing.FilteringBoundLogger = structlog.get_logger(module=name)
    return logger
