"""The commands beside those that migrate: guests, what is left over, the configuration."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from pipeline.config.loading import load_config
from pipeline.config.model import Config
from pipeline.result import write_out
from pipeline.shell.checking import COMMANDS, refusals, words
from pipeline.shell.lines import LogFormat, LogFormatOption, complain, one_line
from pipeline.shell.options import ConfigPath, Quiet, Sets


def guest(
    config: ConfigPath,
    socket: Annotated[Path, typer.Option("--socket", metavar="PATH", help="Where it answers.")],
    incoming: Annotated[
        bool, typer.Option("--incoming", help="Wait, empty, to be filled by a migration.")
    ] = False,
    sets: Sets = None,
    log_format: LogFormatOption = LogFormat.TEXT,
    quiet: Quiet = False,
) -> int:
    """Be a guest that outlives its migrations.

    Until SIGINT or SIGTERM.

    \b
    pageferry guest configs/guest.yaml --socket /tmp/g.sock
    pageferry guest configs/guest.yaml --socket /tmp/g-in.sock --incoming
    pageferry run configs/guest.yaml --set guest.socket=/tmp/g.sock \\
        --set destination.socket=/tmp/g-in.sock
    """
    loaded = load_config(config, sets or [])
    from pipeline.logs import configure_logging
    from pipeline.shell.guest import be_guest

    configure_logging(quiet=quiet, as_json=log_format is LogFormat.JSON)
    be_guest(loaded, socket, incoming=incoming)
    return 0


def history(
    as_json: Annotated[bool, typer.Option("--json", help="A JSON object a line.")] = False,
    last: Annotated[
        int | None, typer.Option("--last", metavar="N", min=1, help="Only the newest N.")
    ] = None,
    log_format: LogFormatOption = LogFormat.TEXT,
) -> int:
    """List how past migrations of this machine ended.

    Newest last.

    \b
    pageferry history --last 10
    pageferry history --json > history.jsonl
    """
    from pipeline.logs import configure_logging
    from pipeline.shell.history import listed

    configure_logging(quiet=False, as_json=log_format is LogFormat.JSON)
    write_out(listed(last, as_json=as_json))
    return 0


def resolve(
    session: Annotated[str, typer.Argument(metavar="SESSION", help="As both results name it.")],
    peer_record: Annotated[
        Path | None,
        typer.Option(
            "--peer-record", metavar="FILE", help="At the source: what resolve printed there."
        ),
    ] = None,
) -> int:
    """Settle a commit that was not answered.

    Where a result says guest-alive: unknown. First at the destination, where it closes and
    prints the record; then at the source, where the guest goes on, or is given up, as that
    record says.

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


def cleanup() -> int:
    """Put right what killed commands left.

    Lets guests go on that stand still, removes files, sockets, folders and records. Exit code 1
    where something is left that only `pageferry resolve` may decide.
    """
    from pipeline.leftovers.cleanup import cleanup as put_right

    said, whole = put_right()
    write_out("".join(f"{one_line(line)}\n" for line in said))
    if not said:
        sys.stderr.write("nothing was left\n")
    return 0 if whole else 1


def check(
    config: ConfigPath,
    sets: Sets = None,
    probe: Annotated[
        bool, typer.Option("--probe", help="Look at the guest: can it move, what does it write?")
    ] = False,
) -> int:
    """Check a file, print what it means.

    The effective configuration, defaults and all; then what migrate or incoming would refuse on
    this machine. Exit code 2 where both would. With --probe what can be seen of the guest, which
    is not touched, and whether one that waits for it here can take it; exit code 1 where something
    is in the way.

    \b
    pageferry check configs/quickstart.yaml
    pageferry check configs/quickstart.yaml --set codec=zstd
    pageferry check configs/qemu.yaml --probe
    """
    from ruamel.yaml import YAML

    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    loaded = load_config(config, sets or [])
    yaml.dump(loaded.model_dump(mode="json", by_alias=True), sys.stdout)
    found = refusals(loaded)
    for line in words(found):
        complain(line, 2, LogFormat.TEXT)
    if len(found) == len(COMMANDS):
        return 2
    return _probe(loaded) if probe else 0


def _probe(config: Config) -> int:
    from pipeline.shell.probing import look, report

    found = look(config)
    write_out(report(found, config))
    return 1 if found.in_the_way else 0


def schema() -> None:
    """Print the JSON Schema of the configuration.

    \b
    pageferry schema > pageferry.schema.json
    """
    sys.stdout.write(json.dumps(Config.model_json_schema(), indent=2) + "\n")


def keygen(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Made if it is not there.")],
) -> None:
    """Make keys for encrypted links.

    Prints the public key, which is in DIR/pageferry.key, too: the other end's security.peers
    names it. The secret one in DIR/pageferry.key_secret stays on this machine.

    \b
    pageferry keygen keys
    """
    from pipeline.config.keys import make_keys

    write_out(f"{make_keys(folder).decode()}\n")
