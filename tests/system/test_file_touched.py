"""A file guest, and the file it comes to, that somebody touches while its memory moves."""

import os
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.model import Config
from pipeline.source.coordinator import Coordinator
from pipeline.source.departures import make_guest
from protocol.limits import PAGE_BYTES
from tests.faults.leaving import Look, before_rounds, leave
from tests.pipeline.guests.helpers import python
from tests.system.migrations import MIB, Destination, settings

Touch = Callable[[Path], object]
WRITES = """
import os, sys, time
file = os.open(sys.argv[1], os.O_RDWR)
print("up", flush=True)
while True:
    os.pwrite(file, os.urandom(8), 20480)
    time.sleep(0.002)
"""


def grow(path: Path) -> None:
    """By sixteen pages."""
    with path.open("ab") as file:
        file.write(os.urandom(16 * PAGE_BYTES))


def write(path: Path) -> None:
    """A few bytes."""
    with path.open("r+b") as file:
        os.pwrite(file.fileno(), b"written", 5 * PAGE_BYTES)


def replace(path: Path) -> None:
    """By another file of the same size."""
    other = path.with_name("other")
    other.write_bytes(bytes(4 * MIB))
    other.replace(path)


def moving(files: Path, **keys: Any) -> dict[str, Any]:  # noqa: ANN401
    """4 MiB of noise that go from one file to another."""
    (files / "source").write_bytes(os.urandom(4 * MIB))
    guest = {"kind": "file", "path": str(files / "source"), "pid": keys.pop("pid", None)}
    return settings(guest, to=files / "target", **keys)


def failure(config: dict[str, Any], files: Path, **looks: Look) -> str:
    """Why it failed, at the source; nothing is left at the destination."""
    there = Destination(config, files)
    guest = make_guest(Config.model_validate(config))
    try:
        here = leave(config, there.uri, guest, **looks)
    finally:
        guest.close()
    assert (here.status, there.result().status) == ("failed", "failed")
    return str(here.error_desc)


def in_round_1(touch: Callable[[], object]) -> Look:
    """Before the first page is sent, when both ends have their files."""

    def at_first(coordinator: Coordinator) -> None:
        def before(round_no: int) -> None:
            if round_no == 1:
                touch()

        before_rounds(coordinator, before)

    return at_first


def in_the_pause(touch: Callable[[], object]) -> Look:
    """Once, in pre-switchover; then it goes on."""

    def look(coordinator: Coordinator) -> None:
        if coordinator._status.status == "pre-switchover" and not coordinator.go_on.is_set():
            touch()
            coordinator.go_on.set()

    return look


@pytest.mark.parametrize("verify", ["full", "frames"])
def test_a_file_that_grows(files: Path, verify: str) -> None:
    """Bytes that are not there, of a guest that is called whole."""
    config = moving(files, verify=verify)
    why = failure(config, files, at_first=in_round_1(partial(grow, files / "source")))
    assert "source has 4259840 bytes now, and had 4194304" in why or "is being written" in why


@pytest.mark.parametrize("verify", ["full", "frames"])
@pytest.mark.parametrize("touch", [replace, Path.unlink])
def test_what_it_comes_to_is_touched(files: Path, verify: str, touch: Touch) -> None:
    """A migration called complete whose file is another one, or nowhere."""
    config = moving(files, verify=verify)
    why = failure(config, files, at_first=in_round_1(partial(touch, files / "target")))
    assert "target is not the file any more that the memory came to" in why


@pytest.mark.parametrize("verify", ["full", "frames"])
@pytest.mark.parametrize(("touch", "words"), [(grow, "bytes now"), (write, "is being written")])
def test_a_pause_in_which_it_changes(files: Path, verify: str, touch: Touch, words: str) -> None:
    """Minutes in which nobody looks."""
    config = moving(files, verify=verify, capabilities={"pause-before-switchover": True})
    why = failure(config, files, on_tick=in_the_pause(partial(touch, files / "source")))
    assert words in why or "is being written" in why


def test_a_pause_in_which_its_writer_goes_on(files: Path) -> None:
    """One that stands still at both looks, and has written in between."""
    moving(files)
    with python(WRITES, str(files / "source")) as (writer, _):

        def let_write() -> None:
            os.kill(writer.pid, signal.SIGCONT)
            time.sleep(0.2)
            os.kill(writer.pid, signal.SIGSTOP)

        pause = {"pause-before-switchover": True}
        config = moving(files, pid=writer.pid, capabilities=pause)
        assert "is being written" in failure(config, files, on_tick=in_the_pause(let_write))


def test_a_file_that_is_written_where_frames_alone_are_verified(files: Path) -> None:
    """A copy that never was the file's content at any one time, since nobody looked twice."""
    config = moving(files, verify="frames", tracker="hash")
    touch = in_round_1(lambda: None)
    with python(WRITES, str(files / "source")):
        assert "is being written" in failure(config, files, at_first=touch)
