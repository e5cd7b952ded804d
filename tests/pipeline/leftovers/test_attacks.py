"""What somebody may put in the way of cleanup and resolve: files, paths, other commands."""

import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.guests.memory import make_file
from pipeline.leftovers.cleanup import cleanup
from pipeline.records.record import (
    BoundSockets,
)
from pipeline.shell.cli import run_command
from protocol.commit import Step
from tests.pipeline.leftovers.helpers import (
    on_record,
)
from tests.system.migrations import Command, both_ends, settings

pytestmark = pytest.mark.timeout(30)


@pytest.fixture(name="own", autouse=True)
def _own(folder: Path) -> Path:
    """The folder of a test, with temporary files and records of its own."""
    return folder


def same(path: Path) -> Path:
    return path


def by_another_name(path: Path) -> Path:
    (path.parent.parent / "alias").symlink_to(path.parent)
    return path.parent.parent / "alias" / path.name


def moved_meanwhile(path: Path) -> Path:
    return path.parent.rename(path.parent.parent / "moved") / path.name


@pytest.mark.parametrize("steps", [(), (Step.READY, Step.NOT_STARTED)])
@pytest.mark.parametrize("called", [same, by_another_name, moved_meanwhile])
def test_what_landed_later_in_the_file_of_a_dead_session_stays(
    own: Path, steps: tuple[Step, ...], called: Callable[[Path], Path]
) -> None:
    """The memory of a guest that arrived, removed as the rest of an older session, which made the
    file and had not come to remove it."""
    (own / "there").mkdir()
    made = make_file(own / "there" / "memory")
    assert made is not None
    on_record("destination", *steps, effects=(made,)).close()
    place = called(own / "there" / "memory")
    (own / "source").write_bytes(b"guest" + bytes(4091))
    guest = {"kind": "file", "path": str(own / "source")}
    _, result = both_ends(settings(guest, to=place, verify="off"), own)
    assert result.error_desc is None
    if called is moved_meanwhile:
        place = place.parent.rename(own / "there") / "memory"
    cleanup()
    assert place.read_bytes().startswith(b"guest")
    for path in (place, own / "source", own / "alias"):
        path.unlink(missing_ok=True)
    (own / "there").rmdir()


def test_a_name_that_leads_to_the_file_is_not_the_file(own: Path) -> None:
    """A user's own link, removed because the file was moved to another disk, and linked to."""
    made = make_file(own / "memory")
    assert made is not None
    on_record("destination", effects=(made,)).close()
    (own / "memory").rename(own / "elsewhere")
    (own / "memory").symlink_to(own / "elsewhere")
    assert cleanup()[1]
    assert (own / "memory").is_symlink()
    (own / "memory").unlink()
    (own / "elsewhere").unlink()


def test_only_sockets_that_nobody_listens_at_are_removed(own: Path) -> None:
    """A socket, file or folder of somebody else, at a path that a dead session had bound."""
    names = ("dead", "alive", "file", "folder", "nothing")
    with socket.socket(socket.AF_UNIX) as dead, socket.socket(socket.AF_UNIX) as alive:
        dead.bind(str(own / "dead"))
        alive.bind(str(own / "alive"))
        alive.listen()
        dead.close()
        (own / "file").touch()
        (own / "folder").mkdir()
        effect = BoundSockets(tuple(str(own / name) for name in names))
        on_record("destination", effects=(effect,)).close()
        assert cleanup()[1]
    assert sorted(path.name for path in own.iterdir()) == ["alive", "file", "folder"]
    (own / "alive").unlink()
    (own / "file").unlink()
    (own / "folder").rmdir()


def test_a_destination_takes_the_place_of_a_dead_one(own: Path) -> None:
    """An address that nobody can listen at any more, because a command was killed there."""
    for number in (signal.SIGKILL, signal.SIGTERM):
        with Command(own, "incoming", "--uri", f"unix:{own}/c") as there:
            there.wait_for("socket_address=")
            there.process.send_signal(number)
            assert there.code() == {signal.SIGKILL: -9, signal.SIGTERM: 130}[number]
        assert (own / "c").exists() == (number is signal.SIGKILL)
    assert cleanup()[1]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_destination_is_not_bound_over_what_is_no_socket(
    own: Path, kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """A user's file that a socket has replaced."""
    path = own / kind
    path.touch() if kind == "file" else path.mkdir()
    assert run_command(["incoming", "--uri", f"unix:{path}"]) == 2
    assert "is a file or folder" in capfd.readouterr().err
    path.unlink() if kind == "file" else path.rmdir()


def test_the_note_of_a_temporary_folder_may_be_anything(own: Path) -> None:
    """A cleanup that waits for ever for a pipe, or reads without end, that any user may put into
    the folder that all share."""
    for name in ("pipe", "endless", "folder"):
        (own / f"pageferry-{name}").mkdir()
    os.mkfifo(own / "pageferry-pipe" / "owner")
    (own / "pageferry-endless" / "owner").symlink_to("/dev/zero")
    (own / "pageferry-folder" / "owner").mkdir()
    assert cleanup() == ([], True)
    (own / "pageferry-folder" / "owner").rmdir()
    for path in own.glob("*/owner"):
        path.unlink()
    for path in own.iterdir():
        path.rmdir()
