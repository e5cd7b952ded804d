"""Whole migrations for tests: both ends in this process, or each end as a command."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from threading import Thread
from typing import Any

import msgspec

from pipeline.config.model import Config
from pipeline.guests.base import SourceGuest
from pipeline.monitor.destination import serve_destination
from pipeline.progress import Observer, Progress
from pipeline.result import Result
from pipeline.source.departures import make_guest
from pipeline.source.outgoing import Outgoing
from protocol.status import StatusMachine
from protocol.uri import Uri, parse_uri
from tests.pipeline.guests.helpers import wait_until
from workers.fork_server import warm_up

ROOT = Path(__file__).parents[2]
MIB = 1 << 20
END_S = 30.0
FEW_WORKERS = {"compress-threads": 2, "decompress-threads": 2}
SYNTHETIC = {
    "kind": "synthetic",
    "memory": "16MiB",
    "workload": {"working-set": "2MiB", "dirty-rate": "4MiB"},
}


def settings(
    guest: dict[str, Any] = SYNTHETIC,
    *,
    to: Path | None = None,
    parameters: Mapping[str, object] | None = None,
    **keys: object,
) -> dict[str, Any]:
    """A configuration as a file says it: `guest` to the file `to`, over two workers an end.

    Batches are small, so that a small guest has many frames.
    """
    return {
        "batch-pages": 64,
        "guest": guest,
        "destination": {"path": None if to is None else str(to)},
        "parameters": {**FEW_WORKERS, **(parameters or {})},
        **{key.replace("_", "-"): value for key, value in keys.items()},
    }


def nobody(_: Progress) -> None:
    """An observer that does not look."""


def migrate(
    config: Config,
    uri: Uri,
    observer: Observer,
    *,
    guest: SourceGuest | None = None,
    status: StatusMachine | None = None,
    watch: Callable[[], None] = lambda: None,
) -> Result:
    """Send a guest to `uri`, from this process: that of `config`, or one that stays the test's."""
    if not uri.is_stream:
        warm_up()
    own = make_guest(config) if guest is None else guest
    outgoing = Outgoing(config, own, observer, status)
    outgoing.watch = watch
    try:
        return outgoing.migrate_now(uri)
    finally:
        if guest is None:
            own.close()


def incoming(config: Config, uri: Uri, stay: float | None, observer: Observer) -> Result:
    """Take one guest in at `uri`, in this process, and keep it for `stay` seconds."""
    return serve_destination(config, uri, None, stay, observer)


class Destination(Thread):
    """The destination as a thread of this process, at a UNIX socket in `folder`."""

    def __init__(self, config: dict[str, Any], folder: Path) -> None:
        super().__init__(daemon=True)
        self.uri = Uri("unix", path=str(folder / "control"))
        self._config = Config.model_validate(config)
        self._result: Result | None = None
        self.start()

    def run(self) -> None:
        """Take one guest in."""
        self._result = incoming(self._config, self.uri, None, nobody)

    def result(self) -> Result:
        """How it ended; AssertionError when it does not end, or ends with an exception."""
        self.join(END_S)
        assert self._result is not None, "the destination gave no result"
        return self._result


def both_ends(
    config: dict[str, Any],
    folder: Path,
    *,
    guest: SourceGuest | None = None,
    watch: Callable[[], None] = lambda: None,
) -> tuple[Result, Result]:
    """Migrate within this process; the results of source and destination."""
    there = Destination(config, folder)
    here = migrate(Config.model_validate(config), there.uri, nobody, guest=guest, watch=watch)
    return here, there.result()


class Command:
    """`pageferry ARGUMENTS` as a process, its words and result in files of `folder`.

    A context manager: what still runs at the end is killed, its files are removed. `launch` is
    what python runs instead of the command itself, `env` what it finds in its environment,
    `inside` the command that runs it in another place.
    """

    def __init__(
        self,
        folder: Path,
        *arguments: str,
        config: dict[str, Any] | None = None,
        launch: Sequence[str] = ("-m", "pipeline"),
        env: Mapping[str, str] | None = None,
        pass_fds: Sequence[int] = (),
        inside: Sequence[str] = (),
    ) -> None:
        stem = f"{arguments[0]}-{time.monotonic_ns()}"
        self._files = [folder / f"{stem}.{kind}" for kind in ("err", "json", "yaml", "out")]
        words, result, yaml, out = self._files
        given = list(arguments)
        if config is not None:
            yaml.write_text(json.dumps(config))
            given.insert(1, str(yaml))
        if arguments[0] in ("run", "incoming", "migrate"):
            given += ["--json", str(result)]
        with words.open("w") as err, out.open("w") as output:
            self.process = subprocess.Popen(
                [*inside, sys.executable, *launch, *given],
                cwd=ROOT,
                env={**os.environ, "TMPDIR": str(folder), **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=err,
                process_group=0,
                pass_fds=pass_fds,
            )

    def __enter__(self) -> "Command":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for path in self._files:
            path.unlink(missing_ok=True)

    @property
    def words(self) -> str:
        """What it has written to standard error by now."""
        return self._files[0].read_text()

    @property
    def output(self) -> str:
        """What it has written to standard output by now."""
        return self._files[3].read_text()

    def wait_for(self, words: str) -> None:
        """Wait until it has said `words`."""
        wait_until(lambda: words in self.words or self.process.poll() is not None, END_S)
        assert words in self.words, self.words

    @property
    def uri(self) -> Uri:
        """Where a destination listens, once it does."""
        self.wait_for("socket_address=")
        address = self.words.partition("socket_address=")[2].split()[0]
        return parse_uri(address.replace("://", ":").replace("ipc:", "unix:"))

    def code(self, within_s: float = END_S) -> int:
        """Its exit code; AssertionError when it does not end in time."""
        try:
            return self.process.wait(within_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {within_s:g} s: {self.words}") from None

    def result(self, within_s: float = END_S) -> Result:
        """Its result, once it has ended."""
        self.code(within_s)
        return msgspec.json.decode(self._files[1].read_bytes(), type=Result)


def listen(folder: Path, *options: str, config: dict[str, Any] | None = None) -> Command:
    """A destination that waits on a free port of this machine."""
    return Command(folder, "incoming", "--uri", "tcp:127.0.0.1:0", *options, config=config)
