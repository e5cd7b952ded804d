"""Heartbeats, and an end that is not heard any more."""

import pytest

from pipeline.control_link import ControlLink
from protocol import control as c
from protocol.errors import PeerLost
from tests.pipeline.clocks import Clock
from tests.pipeline.control_link.links import Ends, hear, listen


def assert_lost_after(
    link: ControlLink, clock: Clock, ms: int, words: str = "nothing heard"
) -> None:
    """The other end is given up so long from now, and not before."""
    listen(link, clock, ms - 1)
    clock.forward(1)
    with pytest.raises(PeerLost, match=words):
        link.tick(clock.now_ns)


@pytest.mark.parametrize("speaker", ["source", "destination"])
def test_a_heartbeat_goes_out_after_a_second_of_silence(
    ends: Ends, clock: Clock, speaker: str
) -> None:
    """An end that is busy and says nothing, and is given up by the other."""
    ends.greet()
    link: ControlLink = getattr(ends, speaker)
    peer = ends.destination if link is ends.source else ends.source
    clock.forward(999)
    link.tick(clock.now_ns)
    assert not peer.socket.poll(50)
    clock.forward(1)
    link.tick(clock.now_ns)
    link.tick(clock.now_ns)
    assert hear(peer) == c.Alive()
    assert not peer.socket.poll(50), "one a second"


@pytest.mark.parametrize(
    ("end", "who"), [("source", "the destination is gone"), ("destination", "the source is gone")]
)
def test_a_peer_that_is_silent_for_five_seconds_is_lost(
    ends: Ends, clock: Clock, end: str, who: str
) -> None:
    """A migration that hangs with its network, or ends although the peer speaks."""
    ends.greet()
    link: ControlLink = getattr(ends, end)
    assert_lost_after(link, clock, 5000, f"{who}: nothing heard for 5 s")


def test_a_peer_that_is_heard_is_not_lost(ends: Ends, clock: Clock) -> None:
    """Our own heartbeats taken for signs of life of the other end."""
    ends.greet()
    for _ in range(3):
        listen(ends.source, clock, 4000)
        ends.destination.send(c.Alive())
        assert hear(ends.source) == c.Alive()
        ends.source.tick(clock.now_ns)
    assert_lost_after(ends.source, clock, 5000)


def test_patience_grows_with_the_commit_timeout(ends: Ends, clock: Clock) -> None:
    """A guest whose load takes ten seconds, given up after five."""
    ends.greet()
    ends.source.patience_s = 30
    assert_lost_after(ends.source, clock, 30_000, "for 30 s")


def test_waiting_for_a_source_is_no_standing_still(ends: Ends, clock: Clock) -> None:
    """A source that says hello and dies, and is waited for as long as it was before."""
    listen(ends.destination, clock, 20_000)
    ends.greet()
    assert_lost_after(ends.destination, clock, 5000)


def test_time_in_which_we_stood_still_is_no_silence(ends: Ends, clock: Clock) -> None:
    """A process that was stopped for a minute, and calls the other end gone when it goes on."""
    ends.greet()
    listen(ends.source, clock, 4000)
    clock.forward(60_000)
    ends.source.tick(clock.now_ns)
    assert_lost_after(ends.source, clock, 1000)


def test_a_destination_without_a_source_waits_as_long_as_it_takes(ends: Ends, clock: Clock) -> None:
    """An incoming end that gives up, or loses its source in the second in which it comes."""
    for _ in range(20):
        clock.forward(10_000)
        ends.destination.tick(clock.now_ns)
    ends.greet()
    clock.forward(4000)
    ends.destination.tick(clock.now_ns)
