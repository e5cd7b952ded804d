"""`pageferry batch`: many migrations over many hosts."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from pipeline.config.environment import check_packages
from pipeline.result import write_out, write_whole
from pipeline.shell.folders import own_temporary_folder
from pipeline.shell.options import Quiet, ReportPath, help_where_alone
from pipeline.shell.performing import check_output, check_report
from protocol.errors import ConfigError

if TYPE_CHECKING:
    from pipeline.batch.summary import Summary

app = typer.Typer(rich_markup_mode=None)
PlanPath = Annotated[Path, typer.Argument(metavar="PLAN", help="A YAML file.")]
Json = Annotated[
    str | None, typer.Option("--json", metavar="PATH", help="Write all of it there; - is stdout.")
]


@app.callback(invoke_without_command=True)
def common(context: typer.Context) -> None:
    """Move many guests over many hosts."""
    help_where_alone(context)


@app.command()
def plan(path: PlanPath, json_path: Json = None) -> int:
    """Say who goes where, when, and how long it takes; begin nothing.

    Exit code 1 where a guest cannot move.

    \b
    pageferry batch plan configs/batch/embedded.yaml
    """
    from pipeline.batch.loading import load_plan, located
    from pipeline.shell.batch_display import dry_run

    loaded, moves = load_plan(path)
    if not loaded.is_embedded:
        check_packages("scheduler", "distributed")
        from pipeline.cluster.dask import check_scheduler

        with located(path):
            check_scheduler(loaded)
    text, as_json, whole = dry_run(loaded, moves, path)
    if json_path is not None:
        write_whole(as_json, json_path)
    if json_path != "-":
        write_out(text)
    return 0 if whole else 1


@app.command()
def run(
    path: PlanPath,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where the last one was killed.")
    ] = False,
    json_path: Json = None,
    events: Annotated[
        str | None,
        typer.Option(
            "--events",
            metavar="PATH",
            help="Write what happens there as it does, a line of JSON each; - is stdout.",
        ),
    ] = None,
    report: ReportPath = None,
    quiet: Quiet = False,
) -> int:
    """Do it.

    Exit code 0 where all guests have arrived. SIGINT and SIGTERM cancel: guests stay where they
    are.

    \b
    pageferry batch run configs/batch/embedded.yaml --report drain.html
    pageferry batch run configs/batch/embedded.yaml --resume
    """
    check_packages("batch run", "distributed", "cryptography")
    check_report(report)
    check_output("--json", json_path)
    check_output("--events", events)
    from pipeline.cluster.running import Observer, run_batch
    from pipeline.logs import configure_logging
    from pipeline.shell.batch_display import display, table
    from pipeline.shell.batch_events import EventLines

    configure_logging(quiet=quiet)
    with own_temporary_folder(), display(quiet=quiet) as shown:
        observers: list[Observer] = [shown]
        observers += [EventLines(events)] if events is not None else []
        found, cancelled = run_batch(path, resume=resume, observers=observers)
    _write(found, json_path, report)
    if not quiet and "-" not in (json_path, events):
        write_out(table(found))
    if cancelled:
        return 130
    if not found.all_arrived:
        sys.stderr.write(f"pageferry: not all have arrived: {found.words}\n")
    return 0 if found.all_arrived else 1


def _write(found: "Summary", json_path: str | None, report: str | None) -> None:
    if json_path is not None:
        write_whole(msgspec.json.format(msgspec.json.encode(found)).decode() + "\n", json_path)
    if report is not None:
        from pipeline.reports.batch import batch_report

        write_whole(batch_report(msgspec.to_builtins(found)), report)


@app.command()
def status(path: PlanPath, json_path: Json = None) -> int:
    """Say where a batch stands, from another terminal, or later.

    \b
    pageferry batch status configs/batch/embedded.yaml
    """
    from pipeline.cluster.running import status as look
    from pipeline.shell.batch_display import table

    found = look(path)
    _write(found, json_path, None)
    if json_path != "-":
        write_out(table(found))
    return 0


@app.command()
def pause(path: PlanPath) -> int:
    """Begin no further migration; those under way go on."""
    return _ask(path, "pause")


@app.command(name="resume")
def go_on(path: PlanPath) -> int:
    """Begin migrations again, after a pause."""
    return _ask(path, "resume")


@app.command()
def cancel(
    path: PlanPath,
    guest: Annotated[str | None, typer.Argument(metavar="[GUEST]", help="Only that one.")] = None,
) -> int:
    """Cancel a batch, or one guest of it: whoever has not left stays where it is."""
    return _ask(path, "cancel", guest or "")


@app.command()
def limit(
    path: PlanPath,
    change: Annotated[str, typer.Argument(metavar="KEY=VALUE", help="As in limits of a plan.")],
) -> int:
    """Change a limit of a batch that runs.

    \b
    pageferry batch limit plan.yaml per-source=4
    """
    from pipeline.batch.plan import Limits

    key, _, value = change.partition("=")
    try:
        Limits.model_validate({key: int(value)})
    except ValueError:  # pydantic's, too
        names = ", ".join(str(info.alias) for info in Limits.model_fields.values())
        raise ConfigError(
            f"found {change!r}, expected KEY=NUMBER with one of {names}, and a number in its range"
        ) from None
    return _ask(path, "limit", change)


def _ask(path: Path, what: str, argument: str = "") -> int:
    from pipeline.cluster.running import ask

    ask(path, what, argument)
    sys.stderr.write(f"{what} is asked for\n")
    return 0
