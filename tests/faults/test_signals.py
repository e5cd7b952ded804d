"""SIGINT and SIGTERM cancel: 130 at both ends, soon, the guest where it was, nothing left."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.model import Config
from pipeline.progress import Progress
from pipeline.result import Result, exit_code
from tests.leaks import processes_of
from tests.pipeline.guests.helpers import python, wait_until
from tests.system.migrations import MIB, Command, Destination, listen, migrate, settings

SOON_S = 5.0
"""A cancel takes up to 1.5 s on a machine of its own."""

WRITER = """
import os, sys, time
fd = os.open(sys.argv[1], os.O_RDWR)
print("up", flush=True)
while True:
    os.pwrite(fd, time.monotonic_ns().to_bytes(8, "little"), 0)
    time.sleep(0.002)
"""
SLOW = {"max-bandwidth": "2MiB"}
SLOW_SETUP = {**SLOW, "compress-threads": 24}
Signal = Callable[[Command], None]


@contextmanager
def file_at_work(folder: Path) -> Iterator[dict[str, Any]]:
    """A guest of 16 MiB of noise and a process that writes there, and still does in the end."""
    path = folder / "memory"
    path.write_bytes(os.urandom(16 * MIB))
    try:
        with python(WRITER, str(path)) as (writer, _):
            yield {"kind": "file", "path": str(path), "pid": writer.pid}
            before = path.read_bytes()[:8]
            wait_until(lambda: path.read_bytes()[:8] != before)
    finally:
        path.unlink()


def to_it(number: signal.Signals) -> Signal:
    """The signal, to the command alone."""
    return lambda command: command.process.send_signal(number)


def to_its_group(number: signal.Signals) -> Signal:
    """The signal, to the command and all its children, as terminals and service managers do."""
    return lambda command: os.killpg(command.process.pid, number)


def assert_cancelled(command: Command, send: Signal) -> None:
    """130, soon, in one line."""
    began = time.monotonic()
    send(command)
    assert command.code() == 130, command.words
    assert time.monotonic() - began < SOON_S
    assert command.words.splitlines()[-1] == "pageferry: cancelled"
    assert "Traceback" not in command.words, command.words
    assert command.result().status == "cancelled"


def assert_told(other: Result) -> None:
    """The other end was cancelled by that, too."""
    assert exit_code(other) == 130
    assert other.guest_alive == "source"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_source_is_cancelled_in_its_rounds(folder: Path, number: signal.Signals) -> None:
    """A cancel taken for a worker's death, a writer left stopped, a destination not told."""
    source_cancelled(folder, to_its_group(number), "round 1", SLOW)


def test_the_source_is_cancelled_in_setup(folder: Path) -> None:
    """Workers half started, and nobody who ends them."""
    source_cancelled(folder, to_it(signal.SIGTERM), "setup", SLOW_SETUP)


def source_cancelled(folder: Path, send: Signal, moment: str, parameters: dict[str, Any]) -> None:
    with file_at_work(folder) as guest:
        there = Destination(settings(to=folder / "target"), folder)
        config = settings(guest, parameters=parameters)
        with Command(folder, "migrate", "--uri", f"unix:{there.uri.path}", config=config) as here:
            here.wait_for(moment)
            wait_until(lambda: (folder / "target").exists())
            assert_cancelled(here, send)
            assert here.result().guest_alive == "source"
        assert_told(there.result())
    assert not (folder / "target").exists()


@pytest.mark.parametrize("send", [to_it(signal.SIGINT), to_its_group(signal.SIGTERM)])
def test_the_destination_is_cancelled_in_the_rounds(folder: Path, send: Signal) -> None:
    """A source that goes on, or fails, when the destination said that it was cancelled."""
    destination_cancelled(folder, send, rounds=1, parameters=SLOW)


def test_the_destination_is_cancelled_in_setup(folder: Path) -> None:
    """A source that waits for a welcome that will not come."""
    destination_cancelled(folder, to_it(signal.SIGINT), rounds=0, parameters=SLOW_SETUP)


def destination_cancelled(
    folder: Path, send: Signal, rounds: int, parameters: dict[str, Any]
) -> None:
    waiting = settings(to=folder / "target", parameters={"decompress-threads": 12})
    with (
        file_at_work(folder) as guest,
        listen(folder, "--uri", f"unix:{folder}/control", config=waiting) as there,
    ):
        sent = False

        def observe(progress: Progress) -> None:
            nonlocal sent
            if not sent and progress.round_no >= rounds and (folder / "target").exists():
                sent = True
                send(there)

        config = Config.model_validate(settings(guest, parameters=parameters))
        assert_told(migrate(config, there.uri, observe))
        assert_cancelled(there, lambda _: None)
    assert not (folder / "target").exists()


def test_cancelled_before_a_source_came(folder: Path) -> None:
    """A destination that can only be killed while it waits."""
    with listen(folder, config=settings(to=folder / "target")) as there:
        assert there.uri.port
        assert_cancelled(there, to_it(signal.SIGINT))
    assert not (folder / "target").exists()


def test_cancelled_while_no_destination_answers(folder: Path) -> None:
    """A source that hears nothing but its own connection attempts."""
    with Command(folder, "migrate", "--uri", f"unix:{folder}/none", config=settings()) as here:
        here.wait_for("setup")
        assert_cancelled(here, to_it(signal.SIGTERM))


def test_run_is_cancelled(folder: Path) -> None:
    """The child that is the other end left behind, or its end taken for a failure."""
    with Command(folder, "run", config=settings(parameters={"max-bandwidth": "1MiB"})) as command:
        command.wait_for("round 1")
        assert_cancelled(command, to_it(signal.SIGTERM))


def test_run_is_cancelled_before_anything_moves(folder: Path) -> None:
    """An end that nobody waits for any more, waiting for ever for a source."""
    with Command(folder, "run", "--quiet", config=settings()) as command:
        wait_until(lambda: any("incoming" in one.cmdline() for one in processes_of(folder)), 10)
        command.process.terminate()
        assert command.code() == 130, command.words
