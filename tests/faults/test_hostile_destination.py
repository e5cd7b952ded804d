"""A destination that lies, against a real source: it fails with the reason, its guest runs on."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import pytest
import zmq

from pipeline.config.model import Config
from pipeline.guests.synthetic import SyntheticGuest
from pipeline.result import Result
from pipeline.source.departures import make_guest
from protocol import control as c
from protocol.frame_opening import decode_hello
from protocol.uri import Uri
from tests.faults.fake_peers import FakeDestination
from tests.pipeline.guests.helpers import wait_until
from tests.protocol.samples import forge_envelope
from tests.system.migrations import migrate, nobody, settings

WINDOW = 8
Lie = Callable[[FakeDestination], None]


@contextmanager
def guest_at_work() -> Iterator[SyntheticGuest]:
    """A synthetic guest, which must run when the test is over."""
    guest = make_guest(Config.model_validate(settings()))
    assert isinstance(guest, SyntheticGuest)
    try:
        yield guest
        guest.statistics()
        wait_until(lambda: (guest.statistics().dirty_rate or 0) > 0)
        assert guest.self_check() is None
    finally:
        guest.close()


def lied_to(folder: Path, lie: Lie, at: Uri | None = None) -> Result:
    """The result of a source whose destination does `lie` once it has heard the hello."""
    config = Config.model_validate(settings())
    at = at or Uri("unix", path=str(folder / "control"))
    with FakeDestination(at) as there, guest_at_work() as guest:

        def play() -> None:
            there.meet()
            lie(there)

        player = Thread(target=play)
        player.start()
        here = migrate(config, there.uri, nobody, guest=guest)
        player.join()
    for name in ("control", "control.0"):
        (folder / name).unlink(missing_ok=True)
    assert here.status == "failed"
    assert here.guest_alive == "source"
    assert here.verified is False
    return here


def say(*messages: c.AnyMessage) -> Lie:
    def lie(there: FakeDestination) -> None:
        for message in messages:
            there.send(message)

    return lie


def welcomed(*messages: c.AnyMessage) -> Lie:
    """Say these once the first round has begun."""

    def lie(there: FakeDestination) -> None:
        there.send(c.Welcome(endpoints=["ipc:///nobody/there"], window=WINDOW, codecs=["none"]))
        there.expect(c.RoundStart)
        for message in messages:
            there.send(message)

    return lie


def never_content(there: FakeDestination) -> None:
    """Says of the first frame, again and again, that it is damaged."""
    endpoint = there.uri.data_endpoint(0)
    there.listen(endpoint)
    there.send(c.Welcome(endpoints=[endpoint], window=WINDOW, codecs=["none"]))
    there.expect(c.RoundStart)
    for _ in range(100):
        there.send(c.Redo(seq=1, reason="damaged"))
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("lie", "reason"),
    [
        (
            say(c.Failed(reason="wrong version 9", cancelled=False)),
            "the destination failed: wrong version 9",
        ),
        (
            welcomed(c.Failed(reason="unknown block 7", cancelled=False)),
            "the destination failed: unknown block 7",
        ),
        (never_content, "frame 1 did not arrive, redone 3 times: damaged"),
        (welcomed(c.Applied(seq=99, decompress_ns=0, write_ns=0, uncompared=0)), "applied 99"),
        (welcomed(c.Started(since_ms=0, running=True)), "received Started in stage moving"),
        (welcomed(c.Ready(load_ms=0)), "received Ready in stage moving"),
        (welcomed(c.Verified(mismatches=0)), "received Verified in stage moving"),
        (say(c.Ready(load_ms=0)), "received Ready in stage greeted"),
        (say(c.Welcome(endpoints=["teapot"], window=1, codecs=["none"])), "teapot"),
        (lambda there: there.send_raw(forge_envelope(b"x", version=2)), "wrong version 2"),
    ],
    ids=range(10),
)
def test_a_lie(folder: Path, lie: Lie, reason: str) -> None:
    """A guest given away, or left stopped, on the word of a destination that does not have it."""
    assert reason in str(lied_to(folder, lie).error_desc)


def test_the_data_goes_to_the_host_that_answered(folder: Path) -> None:
    """A destination that listens on any address says so; at the source that is the source."""
    opened = []

    def lie(there: FakeDestination) -> None:
        lane = there.listen("tcp://127.0.0.2:*")
        port = lane.getsockopt_string(zmq.LAST_ENDPOINT).rpartition(":")[2]
        there.send(c.Welcome(endpoints=[f"tcp://0.0.0.0:{port}"], window=WINDOW, codecs=["none"]))
        if lane.poll(5000):
            _, head = lane.recv_multipart()
            opened.append(decode_hello(head, there.channel.session))
        there.send(c.Failed(reason="enough", cancelled=False))

    here = lied_to(folder, lie, Uri("tcp", host="127.0.0.2"))
    assert here.error_desc == "the destination failed: enough"
    assert opened, "no data connection came to where the destination is"
