"""One trial: both ends as commands of their own, on this machine, and what they took.

Counts the processor time of all of their processes, also of those that outlive their parent for a
moment: whoever is left comes to us (a *subreaper*), and is waited for.
"""

import ctypes
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic, sleep

import msgspec

from pipeline.config.model import Config
from pipeline.laboratory.experiment import Experiment, Link
from pipeline.laboratory.links import Shaped, remove_left, shaped
from pipeline.laboratory.loading import config_of
from pipeline.laboratory.measures import measures_of
from pipeline.laboratory.trials import Row, Trial
from pipeline.result import Result
from protocol.errors import MigrationError

_PR_SET_CHILD_SUBREAPER = 36
START_S = 30.0
END_S = 10.0
"""For the processes of a trial to end after its result."""
ROOM_BYTES = 256 << 10
"""Of disk, for what a trial writes and its row: with less it would be told as one that failed."""


@contextmanager
def subreaper() -> Iterator[None]:
    """While this lasts processes whose parent has ended come to this one."""
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1)
    try:
        yield
    finally:
        libc.prctl(_PR_SET_CHILD_SUBREAPER, 0)


class Laboratory:
    """Makes the trials of one experiment, one at a time, within `subreaper`."""

    def __init__(self, experiment: Experiment, folder: Path) -> None:
        """What a trial needs lies in `folder`, which is gone between them."""
        self._experiment = experiment
        self._folder = folder
        shutil.rmtree(folder, ignore_errors=True)  # of one that was killed
        remove_left()

    def make(self, trial: Trial) -> Row:
        """Try it. One that fails is a row, too; ConfigError where links cannot be had here, OSError
        where the disk is full."""
        began, link = datetime.now(UTC).isoformat(), self._experiment.links[trial.link]
        with shaped(link) as way, _made(self._folder):
            try:
                config = config_of(self._experiment, trial.settings, trial.guest)
                result, cpu_seconds = self._run(_adapted(config, link, way), way)
            except MigrationError as error:
                return Row(trial=trial, error=str(error), shaped_by=way.by, began=began)
        return Row(
            trial=trial,
            measures=measures_of(result, cpu_seconds),
            error=result.error_desc,
            shaped_by=way.by,
            began=began,
            result=msgspec.to_builtins(result),
        )

    def _run(self, config: Config, way: Shaped) -> tuple[Result, float]:
        before, folder = _children_s(), self._folder
        path, written = folder / "config.yaml", folder / "result.json"
        path.write_text(config.model_dump_json(by_alias=True))
        asked = [str(path), "--json", str(written), "--quiet"]
        try:
            with ExitStack() as ends:
                if way.address is None:
                    here = _started(ends, (), folder / "here", "run", *asked)
                else:
                    uri = _listening(ends, way, path, folder / "there")
                    here = _started(
                        ends, way.here, folder / "here", "migrate", *asked, "--uri", uri
                    )
                _wait(here, self._experiment.timeout)
        finally:
            _reap()
        return _result(written, folder / "here"), _children_s() - before


@contextmanager
def _made(folder: Path) -> Iterator[None]:
    """A folder while this lasts; OSError where its disk has no room for a trial."""
    folder.mkdir()
    try:
        with (folder / "room").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, ROOM_BYTES)
        (folder / "room").unlink()
        yield
    finally:
        shutil.rmtree(folder)


def _adapted(config: Config, link: Link, way: Shaped) -> Config:
    """The configuration as this link wants it."""
    if way.by == "tc":
        security = config.security.model_copy(update={"insecure": True})
        return config.model_copy(update={"security": security, "uri": None})
    if way.by != "sender":
        return config
    most = min(filter(None, (config.parameters.max_bandwidth, link.bandwidth)))
    parameters = config.parameters.model_copy(update={"max_bandwidth": most})
    return config.model_copy(update={"parameters": parameters})


def _started(
    ends: ExitStack, inside: tuple[str, ...], words: Path, *arguments: str
) -> subprocess.Popen[bytes]:
    """A command, ended with `ends`, its words in a file."""
    with words.open("wb") as file:
        process = subprocess.Popen(
            [*inside, sys.executable, "-m", "pipeline", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=file,
        )
    ends.callback(_end, process)
    return process


def _listening(ends: ExitStack, way: Shaped, config: Path, words: Path) -> str:
    """Start the destination at the other end of the link; where it listens."""
    uri = f"tcp:{way.address}:0"
    there = _started(ends, way.there, words, "incoming", str(config), "--uri", uri)
    until = monotonic() + START_S
    while "socket_address=" not in words.read_text():
        if there.poll() is not None or monotonic() > until:
            raise MigrationError(f"the destination did not start: {_last_words(words)}")
        sleep(0.01)
    return words.read_text().partition("socket_address=")[2].split()[0].replace("://", ":")


def _wait(process: subprocess.Popen[bytes], within_s: float) -> None:
    try:
        process.wait(within_s)
    except subprocess.TimeoutExpired:
        raise MigrationError(f"not done in {within_s:g} s") from None


def _end(process: subprocess.Popen[bytes]) -> None:
    """By itself, if it does so soon; else it is told to."""
    for number in (0, signal.SIGTERM, signal.SIGKILL):
        process.send_signal(number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(END_S)
            return


def _result(path: Path, words: Path) -> Result:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Result)
    except (OSError, msgspec.DecodeError):
        raise MigrationError(_last_words(words)) from None


def _last_words(path: Path) -> str:
    lines = path.read_text(errors="replace").splitlines()
    return lines[-1].removeprefix("pageferry: ") if lines else "no word of it"


def _reap() -> None:
    """Wait for those whose parent has ended before them."""
    until = monotonic() + END_S
    with suppress(ChildProcessError):
        while monotonic() < until:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                sleep(0.01)


def _children_s() -> float:
    """Processor time of all that were waited for by now."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
