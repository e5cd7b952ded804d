"""The command line: options in, exit code out. What a command does is in its own module.

A user's mistake is one line on standard error and exit code 2, never a traceback.
"""

import json
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, cast

import typer

from pipeline.config.environment import check_environment
from pipeline.config.fields import absolute_uri
from pipeline.config.loading import load_config
from pipeline.config.model import Config
from pipeline.progress import Observer
from pipeline.records.store import make_state_folder
from pipeline.result import Result, exit_code, write_out, write_result
from pipeline.shell.folders import own_temporary_folder
from pipeline.shell.signals import interrupted_once
from protocol.errors import ConfigError, MigrationError
from protocol.status import Status
from protocol.uri import Uri, parse_uri

CLICK_ERROR = cast("type[Exception]", typer.BadParameter.__mro__[2])
"""ClickException: newer releases of typer carry their own copy of click."""

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

ConfigPath = Annotated[Path, typer.Argument(metavar="CONFIG", help="A YAML file.")]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Set a key after the file; repeatable."),
]
UriOption = Annotated[
    str | None, typer.Option("--uri", help="tcp:HOST:PORT or unix:PATH; default: the file's uri.")
]
JsonPath = Annotated[
    str | None, typer.Option("--json", metavar="PATH", help="Write the result there; - is stdout.")
]
Quiet = Annotated[bool, typer.Option("--quiet", help="Show no progress and no table.")]


def _tell_version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"pageferry {version('pageferry')}\n")
        raise typer.Exit


@app.callback()
def common(
    _: Annotated[
        bool,
        typer.Option("--version", callback=_tell_version, is_eager=True, help="Show it, and exit."),
    ] = False,
) -> None:
    """Moves the memory of a running guest while it goes on working."""


@app.command()
def run(
    config: ConfigPath, sets: Sets = None, json_path: JsonPath = None, quiet: Quiet = False
) -> int:
    """Migrate on this machine, both ends.

    \b
    pageferry run configs/quickstart.yaml
    pageferry run configs/quickstart.yaml --set parameters.compress-level=6 --json -
    """
    loaded = load_config(config, sets or [])
    check_environment(loaded, source=True, destination=True)
    from pipeline.shell.local import run as run_here

    return _perform(
        lambda observer: run_here(loaded, observer),
        json_path,
        quiet=quiet,
        lives_on=loaded.destination.socket is not None,
    )


@app.command()
def incoming(
    config: Annotated[
        Path | None, typer.Argument(metavar="[CONFIG]", help="A YAML file; may be left out.")
    ] = None,
    uri: UriOption = None,
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
    quiet: Quiet = False,
) -> int:
    """Wait for one guest: the destination.

    \b
    pageferry incoming --uri tcp:0.0.0.0:4444
    pageferry incoming --uri unix:/tmp/ferry --set destination.path=/dev/shm/guest --stay 60
    """
    loaded = load_config(config, sets or [], need_guest=False)
    listen = _uri(uri, loaded)
    check_environment(loaded, source=False, destination=True)
    from pipeline.destination.command import incoming as receive

    return _perform(
        lambda observer: receive(loaded, listen, stay, observer),
        json_path,
        quiet=quiet,
        lives_on=loaded.destination.socket is not None,
    )


@app.command()
def migrate(
    config: ConfigPath,
    uri: UriOption = None,
    sets: Sets = None,
    json_path: JsonPath = None,
    quiet: Quiet = False,
) -> int:
    """Send a guest to a waiting destination: the source.

    \b
    pageferry migrate configs/two-machines.yaml --uri tcp:192.0.2.10:4444
    pageferry migrate guest.yaml --uri unix:/tmp/ferry --set parameters.max-bandwidth=20MiB
    """
    loaded = load_config(config, sets or [])
    to = _uri(uri, loaded)
    check_environment(loaded, source=True, destination=False)
    from pipeline.source.command import migrate as send

    return _perform(lambda observer: send(loaded, to, observer), json_path, quiet=quiet)


@app.command()
def guest(
    config: ConfigPath,
    socket: Annotated[Path, typer.Option("--socket", metavar="PATH", help="Where it answers.")],
    incoming: Annotated[
        bool, typer.Option("--incoming", help="Wait, empty, to be filled by a migration.")
    ] = False,
    sets: Sets = None,
    quiet: Quiet = False,
) -> int:
    """Be a synthetic guest that outlives its migrations, until SIGINT or SIGTERM.

    \b
    pageferry guest configs/guest.yaml --socket /tmp/g.sock
    pageferry guest configs/guest.yaml --socket /tmp/g-in.sock --incoming
    pageferry run configs/guest.yaml --set guest.socket=/tmp/g.sock \\
        --set destination.socket=/tmp/g-in.sock
    """
    loaded = load_config(config, sets or [])
    from pipeline.shell.guest import be_guest
    from pipeline.shell.logs import configure_logging

    configure_logging(quiet=quiet)
    be_guest(loaded, socket, incoming=incoming)
    return 0


@app.command()
def resolve(
    session: Annotated[str, typer.Argument(metavar="SESSION", help="As both results name it.")],
    peer_record: Annotated[
        Path | None,
        typer.Option(
            "--peer-record", metavar="FILE", help="At the source: what resolve printed there."
        ),
    ] = None,
) -> int:
    """Settle a migration whose commit was not answered (guest-alive: unknown).

    First at the destination, where it closes and prints the record; then at the source, where
    the guest goes on, or is given up, as that record says.

    \b
    pageferry resolve SESSION > record.json                   # at the destination
    pageferry resolve SESSION --peer-record record.json       # at the source
    """
    from pipeline.leftovers.resolve import resolve_destination, resolve_source
    from pipeline.records.record import encode_record

    if peer_record is None:
        write_out(encode_record(resolve_destination(session)).decode())
    else:
        write_out(f"{resolve_source(session, peer_record)}\n")
    return 0


@app.command()
def cleanup() -> int:
    """Put right what killed commands have left: guests that stand still, files, folders.

    Exit code 1 where something is left that only `pageferry resolve` may decide.
    """
    from pipeline.leftovers.cleanup import cleanup as put_right

    said, whole = put_right()
    write_out("".join(f"{line}\n" for line in said))
    return 0 if whole else 1


@app.command()
def check(config: ConfigPath, sets: Sets = None) -> None:
    """Check a file and print the configuration that it means, defaults and all.

    \b
    pageferry check configs/quickstart.yaml
    pageferry check configs/quickstart.yaml --set codec=zstd
    """
    from ruamel.yaml import YAML

    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    loaded = load_config(config, sets or [])
    yaml.dump(loaded.model_dump(mode="json", by_alias=True), sys.stdout)


@app.command()
def schema() -> None:
    """Print the JSON Schema of the configuration.

    \b
    pageferry schema > pageferry.schema.json
    """
    sys.stdout.write(json.dumps(Config.model_json_schema(), indent=2) + "\n")


def run_command(arguments: list[str] | None = None) -> int:
    """Run the command in `arguments` (default: the process's own); its exit code."""
    try:
        code = app(arguments, prog_name="pageferry", standalone_mode=False)
    except ConfigError as error:
        return _complain(str(error), 2)
    except MigrationError as error:
        return _complain(f"failed: {error}", 1)
    except CLICK_ERROR as error:
        return _complain(error.format_message(), 2)  # type: ignore[attr-defined]
    except (KeyboardInterrupt, typer.Abort):
        return _complain("cancelled", 130)
    return code or 0


def _perform(
    migration: Callable[[Observer], Result],
    json_path: str | None,
    *,
    quiet: bool,
    lives_on: bool = False,
) -> int:
    """Run `migration`, show and write its result; the exit code."""
    if json_path is not None and json_path != "-":
        _check_writable(Path(json_path))
    from pipeline.shell.display import summary
    from pipeline.shell.logs import configure_logging

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
        _complain(f"the result cannot be written: {error}", 1)
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
        return _complain("cancelled", code)
    if code:
        mismatch = "the memory that arrived differs" if result.verified is False else None
        return _complain(f"failed: {result.error_desc or mismatch or result.self_check}", code)
    return code


def _check_writable(path: Path) -> None:
    target = path if path.exists() else path.parent
    if path.is_dir() or not os.access(target, os.W_OK):
        raise ConfigError(f"--json: {path} cannot be written")


def _uri(option: str | None, config: Config) -> Uri:
    text = option or config.uri
    if text is None:
        raise ConfigError("uri: found none, expected --uri tcp:HOST:PORT or unix:PATH")
    return parse_uri(absolute_uri(text))


def _complain(message: str, code: int) -> int:
    text = "".join(letter if letter.isprintable() else "?" for letter in " ".join(message.split()))
    with suppress(OSError, AttributeError):  # nobody listens any more; the code says it, too
        sys.stderr.write(f"pageferry: {text}\n")
    return code
