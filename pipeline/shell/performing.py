"""A migration as a command: shown while it runs, its result written, its end an exit code."""

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from pipeline.progress import Observer
from pipeline.records.store import make_state_folder
from pipeline.result import Result, exit_code, write_out, write_result
from pipeline.shell.folders import own_temporary_folder
from pipeline.signals import interrupted_once
from protocol.errors import ConfigError, MigrationError
from protocol.status import Status


def perform(
    migration: Callable[[Observer], Result],
    json_path: str | None,
    *,
    quiet: bool,
    lives_on: bool = False,
) -> int:
    """Run `migration`, show and write its result; the exit code."""
    if json_path is not None and json_path != "-":
        _check_writable(Path(json_path))
    from pipeline.logs import configure_logging
    from pipeline.shell.display import summary

    configure_logging(quiet=quiet)
    make_state_folder()
    with interrupted_once(), own_temporary_folder():
        result = _result_of(migration, quiet=quiet)
    try:
        if json_path is not None:
            write_result(result, json_path)
        if result.status is Status.COMPLETED and not quiet and json_path != "-":
            write_out(summary(result, lives_on=lives_on))
    except OSError as error:  # the guest is where it is, whatever becomes of the words about it
        complain(f"the result cannot be written: {error}", 1)
    return _report_end(result)


def _result_of(migration: Callable[[Observer], Result], *, quiet: bool) -> Result:
    """How `migration` ended, even where it did not get as far as to say so itself."""
    from pipeline.shell.display import observing

    try:
        with observing(quiet=quiet) as observer:
            return migration(observer)
    except ConfigError:
        raise
    except KeyboardInterrupt:
        return Result(status=Status.CANCELLED, error_desc="cancelled")
    except MigrationError as error:
        return Result(status=Status.FAILED, error_desc=str(error))


def _report_end(result: Result) -> int:
    code = exit_code(result)
    if code == 130:
        return complain("cancelled", code)
    if code:
        mismatch = "the memory that arrived differs" if result.verified is False else None
        hint = ""
        if result.guest_alive == "unknown" and result.session:
            hint = (
                f"; whether the guest runs at the destination is not known: it is settled by"
                f" `pageferry resolve {result.session}` there, then here"
            )
        reason = result.error_desc or mismatch or result.self_check
        return complain(f"failed: {reason}{hint}", code)
    return code


def _check_writable(path: Path) -> None:
    target = path if path.exists() else path.parent
    if path.is_dir() or not os.access(target, os.W_OK):
        raise ConfigError(f"--json: {path} cannot be written")


def one_line(message: str) -> str:
    """Words that others may have chosen, as what a terminal only shows."""
    words = " ".join(message.split())
    return "".join(letter if letter.isprintable() else "?" for letter in words)


def complain(message: str, code: int) -> int:
    """Say in one line what is wrong; the exit code `code`."""
    text = one_line(message)
    with suppress(OSError, AttributeError):  # nobody listens any more; the code says it, too
        sys.stderr.write(f"pageferry: {text}\n")
    return code
