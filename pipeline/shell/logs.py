"""Logging: structured lines as text on standard error."""

import logging
import sys

import structlog

from protocol.errors import MigrationError


def configure_logging(*, quiet: bool) -> None:
    """Log from INFO on, or from WARNING on where `quiet`; once, before anything logs."""
    level = logging.WARNING if quiet else logging.INFO
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False),
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        # The stream is looked up each time: a live display puts itself in its place.
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
        cache_logger_on_first_use=False,
    )


def log_if_unexpected(error: Exception) -> None:
    """Log where `error` came from, unless it is one that is meant for the user."""
    if not isinstance(error, MigrationError | OSError):
        structlog.get_logger().error("unexpected error: a bug of pageferry", exc_info=error)
