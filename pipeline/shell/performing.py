"""A migration as a command: shown while it runs, its result written, its end an exit code."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pipeline.config.environment import check_packages
from pipeline.progress import Observer, Progress
from pipeline.records.store import make_state_folder
from pipeline.result import Result, encode_result, exit_code, why_not_good, write_out, write_whole
from pipeline.shell.folders import own_temporary_folder
from pipeline.shell.lines import LogFormat, complain
from pipeline.signals import cancelled_by_signals, interrupted_once
from protocol.errors import ConfigError, MigrationError
from protocol.session import Role
from protocol.status import Status


@dataclass(frozen=True)
class Asked:
    """What a command that migrates may be asked for, whatever end it is."""

    json_path: str | None = None
    report_path: str | None = None
    quiet: bool = False
    log_format: LogFormat = LogFormat.TEXT
    metrics: str | None = None


def perform(
    migration: Callable[[Observer], Result],
    role: Role,
    asked: Asked,
    *,
    keeps: bool = True,
    lives_on: bool = False,
) -> int:
    """Run `migration`, show its result, write it, keep it (`keeps`) in the history; the exit code.

    `lives_on`: the guest is no part of the command, and does not end with it.
    """
    _check_asked(asked)
    from pipeline.logs import configure_logging
    from pipeline.records.history import keep

    configure_logging(quiet=asked.quiet, as_json=asked.log_format is LogFormat.JSON)
    make_state_folder()
    with interrupted_once(), own_temporary_folder():
        result = _result_of(migration, role, asked)
    if keeps:
        with cancelled_by_signals(lambda: None):
            keep(role, result)
    _show(result, asked, lives_on=lives_on, stays_still=keeps)
    return _report_end(result, asked.log_format)


def _show(result: Result, asked: Asked, **about: bool) -> None:
    from pipeline.shell.display import summary

    written = asked.json_path
    try:
        if written is not None:
            write_whole(encode_result(result), written)
        if asked.report_path is not None:
            from pipeline.reports.migration import migration_report

            written = asked.report_path
            write_whole(migration_report(result), written)
        if result.status is Status.COMPLETED and not asked.quiet and asked.json_path != "-":
            written = "-"
            write_out(summary(result, **about))
    except OSError as error:  # the guest is where it is, whatever becomes of the words about it
        what = "standard output" if written == "-" else written
        complain(f"{what} cannot be written: {error.strerror or error}", 1, asked.log_format)


def _result_of(migration: Callable[[Observer], Result], role: Role, asked: Asked) -> Result:
    """How `migration` ended, even where it did not get as far as to say so itself."""
    try:
        with _observing(role, asked) as observer:
            return migration(observer)
    except ConfigError:
        raise
    except KeyboardInterrupt:
        return Result(status=Status.CANCELLED, error_desc="cancelled")
    except MigrationError as error:
        return Result(status=Status.FAILED, error_desc=str(error))


@contextmanager
def _observing(role: Role, asked: Asked) -> Iterator[Observer]:
    """Tell a person, and whoever scrapes, for as long as the migration runs."""
    from pipeline.shell.display import observing

    as_json = asked.log_format is LogFormat.JSON
    if asked.metrics is None:
        with observing(quiet=asked.quiet, as_json=as_json) as display:
            yield display
        return
    from pipeline.shell.metrics import exporting

    with (
        exporting(asked.metrics, role) as export,
        observing(quiet=asked.quiet, as_json=as_json) as display,
    ):
        yield partial(_tell_both, export, display)


def _tell_both(one: Observer, other: Observer, progress: Progress) -> None:
    one(progress)
    other(progress)


def _report_end(result: Result, log_format: LogFormat) -> int:
    code = exit_code(result)
    if code == 130:
        return complain("cancelled", code, log_format)
    if code:
        hint = ""
        if result.guest_alive == "unknown" and result.session:
            hint = (
                f"; whether the guest runs at the destination is not known: it is settled by"
                f" `pageferry resolve {result.session}` there, then here"
            )
        return complain(f"failed: {why_not_good(result)}{hint}", code, log_format)
    return code


def _check_asked(asked: Asked) -> None:
    """ConfigError for what could not be written when the migration is over."""
    check_output("--json", asked.json_path)
    check_report(asked.report_path)


def check_report(path: str | None) -> None:
    """ConfigError where the page could not be drawn, or written."""
    if path is not None:
        check_packages("--report", "matplotlib")
        _check_writable("--report", Path(path))


def check_output(option: str, path: str | None) -> None:
    """ConfigError where no file can be written at the `path` that `option` names; - is stdout."""
    if path is not None and path != "-":
        _check_writable(option, Path(path))


def _check_writable(option: str, path: Path) -> None:
    if path.is_dir():
        raise ConfigError(f"{option}: {path} is a folder, expected a file")
    if not path.parent.is_dir():
        raise ConfigError(f"{option}: {path} cannot be written: there is no folder {path.parent}")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise ConfigError(f"{option}: {path} cannot be written: no permission")
