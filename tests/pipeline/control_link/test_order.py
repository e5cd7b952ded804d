"""The control connection: each end hears the other in order, and what the session lets it say."""

import pytest
import zmq

from protocol import control as c
from protocol.channel import Channel
from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.session import Stage
from tests.pipeline.control_link.links import HELLO, ROUND, Ends, hear, is_deaf
from tests.protocol.samples import OTHER_SESSION, SESSION


def test_both_ends_are_heard_in_order(ends: Ends) -> None:
    """A message that is lost, comes twice or overtakes another."""
    ends.greet()
    assert ends.destination.session_id == ends.source.session_id == SESSION
    rounds = [c.RoundStart(round_no=number, first_seq=number) for number in range(1, 50)]
    for message in rounds:
        ends.source.send(message)
    assert [hear(ends.destination) for _ in rounds] == rounds
    assert ends.destination.session.stage is ends.source.session.stage is Stage.MOVING


def test_what_the_session_forbids_is_not_sent(ends: Ends) -> None:
    """Our own bug, found at the other end."""
    with pytest.raises(LocalProtocolError, match="source was about to send RoundStart"):
        ends.source.send(ROUND)
    ends.source.send(HELLO)
    assert hear(ends.destination) == HELLO


def test_what_the_session_forbids_is_not_heard(ends: Ends) -> None:
    """A commit, for example, that starts a guest of which nothing has come."""
    ends.greet()
    assert ends.source._channel is not None
    ends.source.socket.send(ends.source._channel.outgoing(c.Commit()))
    with pytest.raises(RemoteProtocolError, match="destination received Commit in stage prepared"):
        hear(ends.destination)
    assert ends.destination.session.stage is Stage.OVER


@pytest.mark.parametrize("message", [c.Alive(), c.Commit()])
def test_who_does_not_say_hello_is_no_source(
    ends: Ends, stranger: zmq.Socket[bytes], message: c.AnyMessage
) -> None:
    """A destination that waits no longer, because somebody said a word."""
    stranger.send(Channel(OTHER_SESSION).outgoing(message))
    assert is_deaf(ends.destination)
    assert ends.destination.session_id == b""
    ends.greet()
