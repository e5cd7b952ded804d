"""Damage, cuts, and whoever else comes to the control connection."""

from contextlib import closing
from pathlib import Path

import pytest
import zmq

from pipeline.control_link import Context
from pipeline.strangers import BUSY
from protocol import control as c
from protocol.channel import Channel
from protocol.errors import PeerLost
from protocol.limits import EXTENTS_A_MESSAGE, MAX_CONTROL_BYTES
from tests.pipeline.clocks import Clock
from tests.pipeline.control_link.links import (
    HELLO,
    PATIENCE_MS,
    ROUND,
    Ends,
    hear,
    is_deaf,
    listen,
    say_to_nobody,
)
from tests.protocol.samples import OTHER_SESSION, forge_envelope

STRANGE = {
    "another version": (forge_envelope(b"x", version=2), "wrong version 2"),
    "another magic": (forge_envelope(b"x", magic=b"QEVM"), "magic"),
    "too short": (b"hello?", "control message of 6 bytes"),
}


@pytest.mark.parametrize("kind", STRANGE)
def test_a_stranger_is_told_why_and_the_source_still_comes(
    ends: Ends, stranger: zmq.Socket[bytes], kind: str
) -> None:
    """A version that does not match seen as a network that hangs; a port scan as the source."""
    envelope, reason = STRANGE[kind]
    stranger.send(envelope)
    assert is_deaf(ends.destination)
    assert stranger.poll(PATIENCE_MS)
    answer = Channel(envelope[8:24].ljust(16, b"\0")).incoming(stranger.recv())
    assert isinstance(answer, c.Failed)
    assert reason in answer.reason
    assert ends.destination.session_id == b""
    ends.greet()


@pytest.mark.parametrize("first", [True, False])
def test_a_damaged_message_comes_again(ends: Ends, clock: Clock, first: bool) -> None:
    """A migration that fails because of one bit; a bit that changes what was said."""
    if not first:
        ends.greet()
    message = HELLO if first else ROUND
    envelope = say_to_nobody(ends.source, message)
    ends.source.socket.send(envelope[:-1] + b"y")
    assert is_deaf(ends.destination)
    ends.source.tick(clock.now_ns)
    clock.forward(2000)
    ends.source.tick(clock.now_ns)
    assert hear(ends.destination) == message


def test_what_a_cut_connection_took_along_comes_again_in_order(ends: Ends, clock: Clock) -> None:
    """A message that is lost in a connection, and nobody misses; one that overtakes it."""
    ends.greet()
    rounds = [c.RoundStart(round_no=number, first_seq=number) for number in range(1, 4)]
    say_to_nobody(ends.source, rounds[0])
    say_to_nobody(ends.source, rounds[1])
    ends.source.send(rounds[2])
    assert is_deaf(ends.destination)
    ends.source.tick(clock.now_ns)
    clock.forward(2000)
    ends.source.tick(clock.now_ns)
    assert [hear(ends.destination) for _ in rounds] == rounds


def test_the_answer_goes_where_the_peer_was_heard_last(
    ends: Ends, context: Context, folder: Path
) -> None:
    """A destination that speaks into a connection that is not there any more."""
    ends.greet()
    with closing(context.socket(zmq.DEALER)) as again:
        again.linger = 0
        again.connect(f"ipc://{folder / 'control'}")
        again.send(say_to_nobody(ends.source, ROUND))
        assert hear(ends.destination) == ROUND
        ends.destination.send(c.Alive())
        assert again.poll(PATIENCE_MS)


def test_a_second_source_is_not_heard(ends: Ends, stranger: zmq.Socket[bytes]) -> None:
    """A guest that arrives in the memory of another; a commit from somebody else. A source that
    waits in vain, and is told that nobody answers."""
    ends.greet()
    second = Channel(OTHER_SESSION)
    for message in (HELLO, ROUND, c.Cancel(reason="ha", failed=False)):
        stranger.send(second.outgoing(message))
        assert is_deaf(ends.destination)
    assert stranger.poll(PATIENCE_MS)
    assert second.incoming(stranger.recv()) == c.Failed(reason=BUSY, cancelled=False)
    assert not stranger.poll(50)
    ends.source.send(ROUND)
    assert hear(ends.destination) == ROUND


def test_many_that_come_too_late_cost_little(
    ends: Ends, stranger: zmq.Socket[bytes], clock: Clock
) -> None:
    """A migration that stands still while the destination answers whoever knocks."""
    ends.greet()
    second = Channel(OTHER_SESSION)
    for ms in (0, 99, 1, 50):
        clock.forward(ms)
        stranger.send(second.outgoing(HELLO))
        assert is_deaf(ends.destination)
    answers = 0
    while stranger.poll(100):
        stranger.recv()
        answers += 1
    assert answers == 2


def test_a_stranger_is_no_sign_of_life(
    ends: Ends, stranger: zmq.Socket[bytes], clock: Clock
) -> None:
    """A source that is gone and kept alive by somebody who knocks."""
    ends.greet()
    listen(ends.destination, clock, 4900)
    stranger.send(Channel(OTHER_SESSION).outgoing(c.Alive()))
    assert is_deaf(ends.destination)
    clock.forward(100)
    with pytest.raises(PeerLost):
        ends.destination.tick(clock.now_ns)


def test_a_message_over_the_limit_is_not_taken_in(ends: Ends, stranger: zmq.Socket[bytes]) -> None:
    """Memory that a peer takes from us by one message."""
    stranger.send(bytes(MAX_CONTROL_BYTES + 1))
    assert not ends.destination.socket.poll(200)
    ends.greet()


def test_the_last_word_leaves_before_the_end(ends: Ends, context: Context, folder: Path) -> None:
    """A cancel that the other end never hears of, because it stood behind something long."""
    ends.greet()
    holes = c.Holes(block=0, extents=bytes(16 * EXTENTS_A_MESSAGE))
    for _ in range(8):
        ends.source.send(holes)
    ends.source.send(c.Cancel(reason="asked for", failed=False))
    ends.source.close()
    ends.source.close()
    assert [hear(ends.destination) for _ in range(8)] == [holes] * 8
    assert hear(ends.destination) == c.Cancel(reason="asked for", failed=False)
    ends.destination.close()
    ends.destination.close()
    assert not list(folder.iterdir()), "the socket's file"
