"""A guest that outlives its migrations: one client at a time, and what a vanished one leaves."""

import os
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Barrier, BrokenBarrierError, Thread

import pytest
from structlog.testing import capture_logs

from pipeline.guests import host, wire
from pipeline.guests.host import GuestHost
from pipeline.guests.machine import Machine
from pipeline.guests.process import GuestProcess
from pipeline.guests.synthetic import SyntheticArrival, SyntheticGuest
from pipeline.leftovers.undo import guest_session
from pipeline.records.processes import this_process
from pipeline.unix_sockets import check_free
from protocol.control import BlockInfo
from protocol.errors import ConfigError, GuestError
from protocol.limits import PAGE_BYTES
from tests.pipeline.guests.helpers import PAGES, UNIFORM, copy_memory, wait_until

MEMORY = PAGES * PAGE_BYTES
RAM = [BlockInfo("ram", PAGES)]


class Hosted:
    """A host that serves in a thread."""

    def __init__(self, path: Path, *, incoming: bool) -> None:
        start = wire.Start(MEMORY, None if incoming else UNIFORM, None)
        self.path = path
        self.host = GuestHost(path, lambda: Machine(start))
        self._thread = Thread(target=self.host.serve)
        self._thread.start()

    def end(self) -> None:
        """End the guest; who keeps it keeps its memory mapped."""
        self.host.end()
        self._thread.join(5)
        assert not self._thread.is_alive()
        self.host.close()
        del self.host


@pytest.fixture(name="here")
def _here(folder: Path) -> Iterator[Hosted]:
    hosted = Hosted(folder / "g", incoming=False)
    yield hosted
    hosted.end()


@pytest.fixture(name="there")
def _there(folder: Path) -> Iterator[Hosted]:
    hosted = Hosted(folder / "i", incoming=True)
    yield hosted
    hosted.end()


def arrive(here: Hosted, there: Hosted) -> tuple[SyntheticGuest, SyntheticArrival]:
    """Memory and devices have come over; nothing has been started."""
    guest, arrival = SyntheticGuest.attach(here.path), SyntheticArrival.attach(there.path, RAM)
    guest.stop()
    copy_memory(guest.blocks[0].fd, arrival.blocks[0].fd, MEMORY)
    arrival.load_devices(guest.save_devices())
    return guest, arrival


def test_the_socket_is_its_users_alone(here: Hosted) -> None:
    """A guest that anybody on the machine can stop."""
    assert here.path.stat().st_mode & 0o777 == 0o600


def test_it_goes_over_and_the_one_left_never_runs_again(here: Hosted, there: Hosted) -> None:
    """Two running copies, the second one after a resume that comes too late."""
    guest, arrival = arrive(here, there)
    assert arrival.begin("s", run=True)
    guest.leave()
    with pytest.raises(GuestError, match="was given away"):
        guest.resume()
    guest.close()
    arrival.close()
    assert (here.host.state, there.host.state) == ("gone", "running")
    with pytest.raises(GuestError, match=f"the guest at {here.path} was given away: it neither"):
        SyntheticGuest.attach(here.path)
    with pytest.raises(GuestError, match="runs already: nothing can arrive there"):
        SyntheticArrival.attach(there.path, RAM)


def test_what_arrived_and_was_not_started_is_given_up(here: Hosted, there: Hosted) -> None:
    """A half-made guest that somebody starts later, while the other one has gone on."""
    guest, arrival = arrive(here, there)
    os.pwrite(arrival.blocks[0].fd, b"old", 0)
    arrival.close()
    guest.close()
    again = SyntheticArrival.attach(there.path, RAM)
    assert os.pread(again.blocks[0].fd, 3, 0) == bytes(3)
    with pytest.raises(GuestError, match="not arrived yet"):
        again.begin("s", run=True)
    again.close()


def test_a_guest_that_arrived_paused_stays(here: Hosted, there: Hosted) -> None:
    """A guest that is thrown away because it was not to be started."""
    guest, arrival = arrive(here, there)
    assert not arrival.begin("s", run=False)
    arrival.close()
    guest.close()
    assert there.host.state == "paused"


def test_a_guest_tells_in_which_session_it_arrived(here: Hosted, there: Hosted) -> None:
    """A resolve that takes the guest of a later session for its own, and gives up the only copy."""
    guest, arrival = arrive(here, there)
    assert arrival.begin("second", run=True)
    with pytest.raises(GuestError, match="is here already, since session second"):
        arrival.begin("third", run=True)
    arrival.close()
    guest.close()
    assert guest_session(this_process(), str(there.path)) == "second"
    assert guest_session(this_process(), str(here.path)) == ""


def test_a_client_that_goes_changes_nothing_about_a_guest_that_is_here(here: Hosted) -> None:
    """A guest that goes on by itself after its intent was kept, or that ends with a migration."""
    guest = SyntheticGuest.attach(here.path)
    assert guest.run_state() == "running"
    guest.stop()
    guest.close()
    again = SyntheticGuest.attach(here.path)
    assert again.run_state() == "paused"
    again.close()


def test_one_migration_has_it_at_a_time(here: Hosted) -> None:
    """Two migrations that each stop and resume the guest under the other."""
    guest = SyntheticGuest.attach(here.path)
    with pytest.raises(GuestError, match="another migration has this guest"):
        SyntheticGuest.attach(here.path)
    assert guest.stop() == "running"
    guest.close()


@pytest.mark.parametrize("words", [b"", b"\xc1 nonsense"])
def test_a_stranger_that_says_nonsense_does_no_harm(here: Hosted, words: bytes) -> None:
    """A guest that ends because somebody talked to its socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as stranger:
        stranger.connect(str(here.path))
        stranger.send(words)
        assert stranger.recv(100) == b""
    wait_until(lambda: here.host.state == "running")
    SyntheticGuest.attach(here.path).close()


def test_memory_of_another_size_is_refused(there: Hosted) -> None:
    """Pages that land behind the end of memory."""
    with pytest.raises(GuestError, match=f"has {PAGES} pages of memory, 5 come"):
        SyntheticArrival.attach(there.path, [BlockInfo("ram", 5)])
    with pytest.raises(GuestError, match="waits to be filled, it cannot leave"):
        SyntheticGuest.attach(there.path)


def test_a_socket_is_taken_over_only_from_the_dead(here: Hosted, folder: Path) -> None:
    """A second guest that hides the first; or one that cannot start after a crash."""
    with pytest.raises(ConfigError, match="somebody does"):
        GuestHost(here.path, lambda: pytest.fail("no guest was to be made"))
    stale = folder / "stale"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as dead:
        dead.bind(str(stale))
    hosted = Hosted(stale, incoming=True)
    hosted.end()
    assert not stale.exists()


def test_migrations_that_come_and_go_are_told(here: Hosted, there: Hosted) -> None:
    """A guest that stands still, and whose user cannot see since when, or for whom."""
    with capture_logs() as told:
        guest, arrival = arrive(here, there)
        for session in ("first", None, "second"):
            guest.tell_session(session)
        arrival.tell_session("second")
        assert arrival.begin("second", run=True)
        guest.leave()
        guest.tell_session(None)
        guest.close()
        arrival.close()
        given_up = SyntheticGuest.attach(there.path)
        given_up.tell_session("third")
        assert given_up.run_state() == "running"
        given_up.close()
        wait_until(lambda: len(told) == 8)
    begun, over = "a migration has begun", "a migration is over, the guest is"
    assert [(one["event"], one["session"]) for one in told if one["role"] == "source"] == [
        (begun, "first"),
        (f"{over} paused", "first"),
        (begun, "second"),
        (f"{over} gone", "second"),
        (begun, "third"),
        (f"{over} running", "third"),
    ]
    assert [(one["event"], one["session"]) for one in told if one["role"] == "destination"] == [
        (begun, "second"),
        (f"{over} running", "second"),
    ]


def test_of_two_guests_that_start_at_once_at_one_path_one_does(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A guest that runs on behind a socket which is another's, so that nobody reaches it."""
    path = folder / "g"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as dead:
        dead.bind(str(path))

    looked = Barrier(2)

    def look(path: Path, key: str, kind: socket.SocketKind) -> None:
        check_free(path, key, kind)
        with suppress(BrokenBarrierError):
            looked.wait(0.2)

    monkeypatch.setattr(host, "check_free", look)
    start = wire.Start(MEMORY, None, None)
    with ThreadPoolExecutor() as both:
        made = [both.submit(GuestHost, path, lambda: Machine(start)) for _ in range(2)]
    refusals = [one.exception() for one in made if one.exception()]
    assert [str(error) for error in refusals] == [
        f"--socket: cannot listen on {path}: somebody does"
    ]
    [only] = [one.result() for one in made if not one.exception()]
    only.close()


def test_nobody_answers(folder: Path) -> None:
    """A traceback for a path that is wrong."""
    with pytest.raises(GuestError, match="No such file"):
        GuestProcess.attach(folder / "x")
