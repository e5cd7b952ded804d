"""Both ends on this machine: the destination as a process of its own, the source here."""

import os
import subprocess
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic

import msgspec
import structlog

from pipeline.config.model import Config, SyntheticGuest
from pipeline.monitor.source import serve_source
from pipeline.progress import Observer
from pipeline.result import Result
from pipeline.signals import end_with
from protocol.errors import ConfigError, PeerLost
from protocol.status import Status
from protocol.uri import parse_uri

START_SECONDS = 30.0
END_SECONDS = 120.0
"""For the destination to check its guest and end: a self-check reads some 2 GiB/s."""
FAILED_SECONDS = 6.0
"""For one that was told of a failure, or notices that the source is gone; else it is ended."""


def run(config: Config, qmp: Path | None, observer: Observer) -> Result:
    """Migrate the guest of `config` into an `incoming` of the same configuration.

    `qmp`, where it is given, is the socket at which the source may be driven. One result for both
    ends: the source's, with what only the destination knows.
    """
    if config.uri is not None and parse_uri(config.uri).is_stream:
        raise ConfigError("uri: run has both ends, expected tcp:HOST:PORT or unix:PATH")
    _warn_of_the_end(config)
    with TemporaryDirectory(prefix="pageferry-run-") as folder:
        uri = config.uri or f"unix:{folder}/control"
        there = _Destination(config, uri, Path(folder))
        try:
            there.wait_until_up()
            here = serve_source(config, parse_uri(uri), qmp, observer, there.check)
            moved = here.guest_alive != "source"
            try:
                return _merged(here, there.result(END_SECONDS if moved else FAILED_SECONDS))
            except KeyboardInterrupt:  # too late: it is decided where the guest is
                return _merged(here, None)
        finally:
            there.close()


def _warn_of_the_end(config: Config) -> None:
    lives_on = isinstance(config.guest, SyntheticGuest) and config.guest.socket is not None
    if lives_on and config.destination.socket is None:
        structlog.get_logger().warning(
            "the guest moves into this command and ends with it: destination.socket keeps it"
        )


class _Destination:
    """The other end: `pageferry incoming` as a child."""

    def __init__(self, config: Config, uri: str, folder: Path) -> None:
        self._json = folder / "result.json"
        self._words = folder / "stderr"
        same = folder / "config.yaml"
        same.write_text(config.model_dump_json(by_alias=True))
        options = ["--uri", uri, "--json", str(self._json)]
        with self._words.open("w") as words:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "pipeline", "incoming", str(same), *options],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=words,
                preexec_fn=partial(end_with, os.getpid()),
            )

    def wait_until_up(self) -> None:
        """Wait until it listens, so that its start is not taken for the migration's setup."""
        deadline = monotonic() + START_SECONDS
        while "listening" not in self._words.read_text() and monotonic() < deadline:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(0.01)
            self.check()

    def check(self) -> None:
        """PeerLost, with its last words, when it has ended before its time.

        ConfigError where it says that the mistake is the user's.
        """
        code = self._process.poll()
        if code in (None, 0):
            return
        lines = self._words.read_text().splitlines()
        words = lines[-1].removeprefix("pageferry: ") if lines else "no word of it"
        if code == 2:
            raise ConfigError(words)
        raise PeerLost(f"the destination ended, exit code {code}: {words}")

    def result(self, within_s: float) -> Result | None:
        """Its result, once it has ended; None where it left none."""
        try:
            self._process.wait(within_s)
            return msgspec.json.decode(self._json.read_bytes(), type=Result)
        except (subprocess.TimeoutExpired, OSError, msgspec.DecodeError):
            return None

    def close(self) -> None:
        """End it, if it has not ended. Idempotent."""
        if self._process.poll() is None:
            self._process.terminate()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _merged(here: Result, there: Result | None) -> Result:
    if here.status is not Status.COMPLETED:
        return here
    if there is None or there.status is not Status.COMPLETED:
        here.self_check = there.error_desc if there else "the destination left no result"
    else:
        here.self_check, here.guest_gap = there.self_check, there.guest_gap
    return here
