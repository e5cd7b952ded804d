"""The command line: options in, exit code out. What a command does is in its own module.

A user's mistake is one line on standard error and exit code 2, never a traceback.
"""

import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, cast

import typer

from pipeline.config.environment import check_environment
from pipeline.config.fields import absolute_uri
from pipeline.config.loading import load_config
from pipeline.config.model import Config, SyntheticGuest
from pipeline.shell import batch, tools
from pipeline.shell.host import host
from pipeline.shell.lines import LogFormat, LogFormatOption, asked_for, complain
from pipeline.shell.options import (
    ConfigPath,
    JsonPath,
    Metrics,
    QmpPath,
    Quiet,
    ReportPath,
    Sets,
    UriOption,
    help_where_alone,
)
from pipeline.shell.performing import Asked, perform
from pipeline.shell.tune import tune
from protocol.errors import ConfigError, MigrationError
from protocol.session import Role
from protocol.uri import DEFER, Uri, parse_uri

CLICK_ERROR = cast("type[Exception]", typer.BadParameter.__mro__[2])
"""ClickException: newer releases of typer carry their own copy of click."""

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _tell_version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"pageferry {version('pageferry')}\n")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def common(
    context: typer.Context,
    _: Annotated[
        bool,
        typer.Option("--version", callback=_tell_version, is_eager=True, help="Show it, and exit."),
    ] = False,
) -> None:
    """Moves the memory of a running guest while it goes on working."""
    help_where_alone(context)


@app.command()
def run(
    config: ConfigPath,
    qmp: QmpPath = None,
    sets: Sets = None,
    json_path: JsonPath = None,
    report: ReportPath = None,
    metrics: Metrics = None,
    log_format: LogFormatOption = LogFormat.TEXT,
    quiet: Quiet = False,
) -> int:
    """Migrate on this machine, both ends.

    \b
    pageferry run configs/quickstart.yaml
    pageferry run configs/quickstart.yaml --set parameters.compress-level=6 --json -
    pageferry run configs/quickstart.yaml --metrics 9100 --log-format json
    pageferry run configs/quickstart.yaml --report quickstart.html
    """
    loaded = load_config(config, sets or [])
    _check_driven(loaded, qmp)
    check_environment(loaded, source=True, destination=True)
    from pipeline.shell.local import run as run_here

    return perform(
        lambda observer: run_here(loaded, qmp, observer),
        "source",
        Asked(json_path, report, quiet, log_format, metrics),
        lives_on=loaded.destination.socket is not None,
    )


@app.command()
def incoming(
    config: Annotated[
        Path | None, typer.Argument(metavar="[CONFIG]", help="A YAML file; may be left out.")
    ] = None,
    uri: UriOption = None,
    qmp: QmpPath = None,
    stay: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            min=0,
            max=1e9,
            help="Keep a synthetic guest that arrived this long; default: until it checked itself.",
        ),
    ] = None,
    sets: Sets = None,
    json_path: JsonPath = None,
    report: ReportPath = None,
    metrics: Metrics = None,
    log_format: LogFormatOption = LogFormat.TEXT,
    quiet: Quiet = False,
) -> int:
    """Wait for one guest: the destination.

    \b
    pageferry incoming configs/two-machines.yaml --uri tcp:0.0.0.0:4444
    pageferry incoming --uri unix:/tmp/ferry --set destination.path=/dev/shm/guest --stay 60
    pageferry incoming --uri file:/backup/guest
    pageferry incoming --uri defer --qmp /tmp/ferry-in.qmp
    pageferry incoming --uri tcp:0.0.0.0:4444 --metrics 192.0.2.10:9100 --log-format json
    """
    loaded = load_config(config, sets or [], need_guest=False)
    if uri == DEFER and qmp is None:
        raise ConfigError("--uri defer: expected --qmp PATH with it, to be told where to wait")
    listen = None if uri == DEFER else _uri(uri, loaded, "destination", json_path)
    check_environment(loaded, source=False, destination=True)
    from pipeline.monitor.destination import serve_destination

    return perform(
        lambda observer: serve_destination(loaded, listen, qmp, stay, observer),
        "destination",
        Asked(json_path, report, quiet, log_format, metrics),
        lives_on=loaded.destination.socket is not None,
    )


@app.command()
def migrate(
    config: ConfigPath,
    uri: UriOption = None,
    qmp: QmpPath = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Do nothing until QMP says so, until it says quit.")
    ] = False,
    sets: Sets = None,
    json_path: JsonPath = None,
    report: ReportPath = None,
    metrics: Metrics = None,
    log_format: LogFormatOption = LogFormat.TEXT,
    quiet: Quiet = False,
) -> int:
    """Send a guest to a waiting destination: the source.

    \b
    pageferry migrate configs/two-machines.yaml --uri tcp:192.0.2.10:4444
    pageferry migrate guest.yaml --uri unix:/tmp/ferry --set parameters.max-bandwidth=20MiB
    pageferry migrate guest.yaml --uri 'exec:ssh host pageferry incoming --uri fd:0'
    pageferry migrate guest.yaml --uri file:/backup/guest
    pageferry migrate guest.yaml --qmp /tmp/ferry.qmp --wait
    pageferry migrate guest.yaml --uri unix:/tmp/ferry --metrics [::1]:0
    """
    loaded = load_config(config, sets or [])
    if wait and qmp is None:
        raise ConfigError("--wait: nobody could say what to do, expected --qmp PATH with it")
    if wait and uri is not None:
        raise ConfigError("--wait: found --uri with it, expected QMP's migrate to say where to")
    _check_driven(loaded, qmp)
    to = None if wait else _uri(uri, loaded, "source", json_path)
    check_environment(loaded, source=True, destination=False)
    from pipeline.monitor.source import serve_source
    from pipeline.records.history import keep

    guest = loaded.guest
    return perform(
        lambda observer: serve_source(
            loaded, to, qmp, observer, on_each=lambda result: keep("source", result)
        ),
        "source",
        Asked(json_path, report, quiet, log_format, metrics),
        keeps=not wait,
        lives_on=not isinstance(guest, SyntheticGuest) or guest.socket is not None,
    )


app.add_typer(batch.app, name="batch")
for tool in (
    tune,
    host,
    tools.guest,
    tools.history,
    tools.keygen,
    tools.resolve,
    tools.cleanup,
    tools.check,
    tools.schema,
):
    app.command()(tool)


def run_command(arguments: list[str] | None = None) -> int:
    """Run the command in `arguments` (default: the process's own); its exit code."""
    log_format = asked_for(sys.argv[1:] if arguments is None else arguments)
    try:
        code = app(arguments, prog_name="pageferry", standalone_mode=False)
    except ConfigError as error:
        return complain(str(error), 2, log_format)
    except MigrationError as error:
        return complain(f"failed: {error}", 1, log_format)
    except CLICK_ERROR as error:
        return complain(error.format_message(), 2, log_format)  # type: ignore[attr-defined]
    except OSError as error:  # a file that is asked for and cannot be, a disk that is full
        return complain(f"failed: {error}", 1, log_format)
    except (KeyboardInterrupt, typer.Abort):
        return complain("cancelled", 130, log_format)
    return code or 0


def _check_driven(config: Config, qmp: Path | None) -> None:
    if config.capabilities.pause_before_switchover and qmp is None:
        raise ConfigError(
            "capabilities.pause-before-switchover: found true, expected --qmp PATH with it:"
            " only QMP's migrate-continue goes on from there"
        )


def _uri(option: str | None, config: Config, role: Role, json_path: str | None) -> Uri:
    text = option or config.uri
    if text is None:
        raise ConfigError("uri: found none, expected --uri tcp:HOST:PORT or unix:PATH, or another")
    uri = parse_uri(absolute_uri(text, role))
    if uri.fd in (0, 1) and json_path == "-":
        raise ConfigError(f"--json: standard output is for {uri}, expected a path")
    return uri
