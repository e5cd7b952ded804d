"""What a command says of itself in one line on standard error: text, or JSON where asked for."""

import sys
from collections.abc import Sequence
from contextlib import suppress
from enum import StrEnum
from itertools import pairwise
from typing import Annotated

import typer

_OPTION = "--log-format"


class LogFormat(StrEnum):
    """How lines on standard error are written."""

    TEXT = "text"
    JSON = "json"


LogFormatOption = Annotated[
    LogFormat, typer.Option(_OPTION, help="Lines on standard error; json: an object a line.")
]


def asked_for(arguments: Sequence[str]) -> LogFormat:
    """The format that a command line wants, which may be one that cannot be understood."""
    given = {f"{_OPTION}={LogFormat.JSON}", f"{_OPTION} {LogFormat.JSON}"}
    words = {*arguments, *map(" ".join, pairwise(arguments))}
    return LogFormat.JSON if words & given else LogFormat.TEXT


def one_line(message: str) -> str:
    """Words that others may have chosen, as what a terminal only shows."""
    words = " ".join(message.split())
    return "".join(letter if letter.isprintable() else "?" for letter in words)


def complain(message: str, code: int, log_format: LogFormat) -> int:
    """Say in one line what is wrong; the exit code `code`."""
    text = one_line(message)
    if log_format is LogFormat.JSON:
        _complain_in_json(text, code)
        return code
    with suppress(OSError, AttributeError):  # nobody listens any more; the code says it, too
        sys.stderr.write(f"pageferry: {text}\n")
    return code


def _complain_in_json(text: str, code: int) -> None:
    import structlog

    from pipeline.logs import configure_logging

    configure_logging(quiet=True, as_json=True)
    structlog.get_logger().error(text, exit_code=code)
