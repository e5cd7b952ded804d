"""Options that several commands have."""

from pathlib import Path
from typing import Annotated

import typer

ConfigPath = Annotated[Path, typer.Argument(metavar="CONFIG", help="A YAML file.")]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Set a key after the file; repeatable."),
]
UriOption = Annotated[
    str | None,
    typer.Option(
        "--uri",
        help="tcp:HOST:PORT, unix:PATH, exec:COMMAND (both its pipes), fd:N (a socket, or N reads"
        " and N+1 writes) or file:PATH (a saved guest); default: the file's uri.",
    ),
]
JsonPath = Annotated[
    str | None, typer.Option("--json", metavar="PATH", help="Write the result there; - is stdout.")
]
ReportPath = Annotated[
    str | None,
    typer.Option("--report", metavar="PATH.html", help="Write a page about it there, with charts."),
]
Quiet = Annotated[bool, typer.Option("--quiet", help="Show no progress and no table.")]
QmpPath = Annotated[
    Path | None,
    typer.Option("--qmp", metavar="PATH", help="Let QMP clients drive it, at a socket there."),
]
Metrics = Annotated[
    str | None,
    typer.Option(
        "--metrics", metavar="[HOST:]PORT", help="Let Prometheus scrape it there; port 0: any."
    ),
]


def help_where_alone(context: typer.Context) -> None:
    """Of a command that has others below it: what these are, where none is asked for."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), err=True)
        raise typer.Exit(2)
