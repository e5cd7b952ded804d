"""Guests that live on their own, and what became of them before somebody comes to put right."""

import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from threading import Thread

import pytest
from msgspec.structs import replace

from pipeline.guests import wire
from pipeline.leftovers.cleanup import cleanup
from pipeline.records.processes import maybe_process, this_process
from pipeline.records.record import Record, StoppedGuest, encode_record
from pipeline.records.store import find_record
from pipeline.shell.cli import run_command
from pipeline.source.departures import make_guest
from protocol.commit import Step
from protocol.errors import GuestError
from tests.pipeline.guests.helpers import python, wait_until
from tests.pipeline.leftovers.helpers import DEAD, SESSION, forget, heard, on_record, say
from tests.pipeline.leftovers.living import Guests, config_of

pytestmark = pytest.mark.timeout(30)
SOON_S = 3.0
OTHER = "ef" * 16


@pytest.fixture(name="guests")
def _guests(folder: Path) -> Iterator[Guests]:
    with ExitStack() as stack:
        yield Guests(folder, stack)
    for path in folder.iterdir():
        path.unlink()  # of guests that were killed, and what tests made


def peer_record(folder: Path, step: Step) -> str:
    """What resolve has printed at the destination."""
    record = Record(session=SESSION, role="destination", name="guest", owner=DEAD)
    (folder / "peer").write_bytes(encode_record(record.at(step, "")))
    return str(folder / "peer")


def test_a_guest_that_has_moved_on_is_not_started_again(
    guests: Guests, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Two running guests: the session in which it came was left without an answer, another one
    has taken it away, and a new guest has the place of that which it was."""
    guests.start("g", "i", "i2")
    guests.move("g", "i", SESSION)
    here = on_record("source", Step.INTENT, **guests.facts("g"))
    there = on_record("destination", Step.READY, Step.COMMITTED, **guests.facts("i"))
    guests.move("i", "i2", OTHER)
    guests.end("i")
    guests.start("i")
    assert run_command(["resolve", SESSION]) == 0
    (folder / "peer").write_text(capfd.readouterr().out)
    assert run_command(["resolve", SESSION, "--peer-record", str(folder / "peer")]) == 0
    assert capfd.readouterr().out == "the guest was given away\n"
    assert [guests.state(name) for name in ("g", "i", "i2")] == ["gone", "waiting", "running"]
    forget(here, there)


@pytest.mark.parametrize("step", [Step.STARTED, Step.NOT_STARTED])
def test_a_guest_in_the_place_of_one_that_was_given_away_is_left_alone(
    guests: Guests, folder: Path, step: Step
) -> None:
    """A guest that never runs again, or that goes on though its user has stopped it, because
    another one was at its socket before."""
    guests.start("g")
    effect = guests.stop("g")
    old = replace(effect.guest, started=1)
    record = on_record(
        "source",
        Step.INTENT,
        guest=old,
        socket=effect.socket,
        effects=(replace(effect, guest=old),),
    )
    assert run_command(["resolve", SESSION, "--peer-record", peer_record(folder, step)]) == 0
    assert guests.state("g") == "paused"
    forget(record)


def test_a_guest_whose_socket_another_one_has_is_told_and_neither_touched(
    guests: Guests, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A stranger that is let go on, or never runs again, in the middle of its own migration."""
    guests.start("g")
    place = guests.stop("g").socket
    (folder / "file").touch()
    places = (place, str(folder / "file"), str(folder / "nothing"), "/" + "x" * 200)
    with python("print(flush=True); input()") as (child, _):
        found = maybe_process(child.pid)
        assert found is not None
        effect = StoppedGuest(found, place)
        for socket_path in places:
            facts = {"guest": found, "socket": socket_path}
            effects = (replace(effect, socket=socket_path),)
            for steps in ((), (Step.INTENT, Step.KEPT), (Step.INTENT, Step.GIVEN)):
                record = on_record("source", *steps, **facts, effects=effects)
                assert run_command(["cleanup"]) == 1
                told = capfd.readouterr().out
                assert told.count("\n") == 1
                assert socket_path in told
                forget(record)
        for step in (Step.STARTED, Step.NOT_STARTED):
            peer = peer_record(folder, step)
            record = on_record("source", Step.INTENT, guest=found, socket=place, effects=(effect,))
            assert run_command(["resolve", SESSION, "--peer-record", peer]) == 1
            forget(record)
    assert "is not the guest at" in capfd.readouterr().err
    assert guests.state("g") == "paused"


AT_ONCE = """
import sys
from pathlib import Path
from protocol.errors import MigrationError
from pipeline.source.departures import make_guest
from tests.pipeline.leftovers.living import config_of
config = config_of(Path(sys.argv[1]))
print("up", flush=True)
for _ in sys.stdin:
    try:
        guest = make_guest(config)
    except MigrationError as error:
        print(error, flush=True)
        continue
    print("got", flush=True)
    sys.stdin.readline()
    guest.close()
"""


def test_of_two_that_ask_for_a_guest_at_the_same_moment_one_gets_it(
    guests: Guests, folder: Path
) -> None:
    """Two migrations that each stop, and resume, one guest; or two that both give up."""
    guests.start("g")
    (folder / "alias").symlink_to(guests.at("g"))
    names = (str(guests.at("g")), str(folder / "alias"))
    with python(AT_ONCE, names[0]) as (one, _), python(AT_ONCE, names[1]) as (other, _):
        for _ in range(8):
            say(one, "")
            say(other, "")
            told = {heard(one): one, heard(other): other}
            assert len(told) == 2
            say(told.pop("got"), "")
            assert "another migration has this guest" in next(iter(told))


def test_a_guest_is_the_same_by_any_name(guests: Guests, folder: Path) -> None:
    """A second migration of a guest that may run elsewhere, or is migrated, by a link to its
    socket."""
    guests.start("g")
    (folder / "alias").symlink_to(guests.at("g"))
    alias = config_of(folder / "alias")
    effects = (guests.stop("g"),)
    migrated = on_record("source", owner=this_process(), **guests.facts("g"))
    with pytest.raises(GuestError, match=f"process {os.getpid()} migrates that guest"):
        make_guest(alias)
    forget(migrated)
    given = on_record("source", Step.INTENT, **guests.facts("g"))
    with pytest.raises(GuestError, match=f"pageferry resolve {SESSION}"):
        make_guest(alias)
    forget(given)
    left = on_record("source", **guests.facts("g"), effects=effects)
    make_guest(alias).close()
    assert guests.state("g") == "running"
    left.close()


def test_a_guest_that_hangs_and_takes_no_more_callers_holds_nobody_up(
    guests: Guests, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A cleanup, a resolve or a migration that waits for ever at the socket of such a one; or
    one that forgets it, so that it stands still for ever when it comes to."""
    guests.start("g")
    effects = (guests.stop("g"),)
    facts = guests.facts("g")
    guests.signal("g", signal.SIGSTOP)
    with ExitStack() as callers:
        with suppress(BlockingIOError):
            while True:
                caller = callers.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
                caller.setblocking(False)
                caller.connect(str(guests.at("g")))
        began = time.monotonic()
        left = on_record("source", Step.INTENT, **facts, effects=effects)
        with pytest.raises(GuestError, match="no guest answers at"):
            make_guest(config_of(guests.at("g")))
        peer = peer_record(folder, Step.NOT_STARTED)
        assert run_command(["resolve", SESSION, "--peer-record", peer]) == 1
        assert capfd.readouterr().err.count("\n") == 1
        assert run_command(["cleanup"]) == 1
        assert capfd.readouterr().out.count("\n") == 1
        assert time.monotonic() - began < SOON_S
    assert left.change(Step.OPEN, Step.INTENT) is False
    assert left.step is Step.KEPT
    guests.signal("g", signal.SIGCONT)
    wait_until(lambda: cleanup()[1])
    assert guests.state("g") == "running"
    left.close()


ANSWERS = {
    "nonsense": b"\xc1\x00",
    "no memory": wire.encode((1, wire.Described("ram", 1, 0, "running", ""))),
    "another question": wire.encode((1, wire.Done())),
    "nothing": b"",
}


@pytest.mark.parametrize("answer", ANSWERS)
def test_what_is_no_guest_is_told(
    folder: Path, answer: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """A traceback, because something else listens where a guest is looked for."""

    def serve() -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                with client:
                    if client.recv(wire.PACKET_BYTES):
                        client.send(ANSWERS[answer])

    path = folder / "g"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(path))
        listener.listen()
        thread = Thread(target=serve)
        thread.start()
        with pytest.raises(GuestError):
            make_guest(config_of(path))
        record = on_record(
            "destination", Step.READY, Step.COMMITTED, guest=this_process(), socket=str(path)
        )
        assert run_command(["resolve", SESSION]) == 1
        assert capfd.readouterr().err.count("\n") == 1
        found = find_record(SESSION, "destination")
        assert found.step is Step.COMMITTED
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
    forget(record, found)
    path.unlink()
