"""Logging: structured lines on standard error, as text or as a JSON object each."""

import io
import logging
import sys
from contextlib import suppress

import structlog
import zmq
from structlog.typing import Processor

from protocol.errors import MigrationError


class _Harmless(io.StringIO):
    """Standard error, whether somebody reads it or not."""

    def write(self, text: str) -> int:
        with suppress(OSError, AttributeError):
            sys.stderr.write(text)
            sys.stderr.flush()
        return len(text)


def configure_logging(*, quiet: bool, as_json: bool = False) -> None:
    """Log from INFO on, or from WARNING on where `quiet`; once, before anything logs."""
    level = logging.WARNING if quiet else logging.INFO
    structlog.configure(
        processors=[structlog.processors.add_log_level, *(_JSON if as_json else _text())],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        # The stream is looked up each time: a live display puts itself in its place.
        logger_factory=lambda *_: structlog.PrintLogger(_Harmless()),
        cache_logger_on_first_use=False,
    )


_JSON: list[Processor] = [
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.format_exc_info,
    structlog.processors.JSONRenderer(),
]


def _text() -> list[Processor]:
    return [
        structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False),
        structlog.dev.ConsoleRenderer(colors=bool(sys.stderr and sys.stderr.isatty())),
    ]


def log_if_unexpected(error: Exception) -> None:
    """Log where `error` came from, unless it is one that is meant for the user."""
    if not isinstance(error, MigrationError | OSError | zmq.ZMQError):
        structlog.get_logger().error("unexpected error: a bug of pageferry", exc_info=error)
