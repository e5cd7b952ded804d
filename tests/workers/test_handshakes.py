"""Who came to nothing, from events that name a connection only at its beginning and end."""

import pytest
import zmq

from workers.handshakes import HUNG_UP, OTHER_PROTOCOL, SAID_NOTHING, Handshakes

S = 1_000_000_000
E = zmq.Event


def test_one_that_stood_is_not_told() -> None:
    """An honest source, called turned away when its migration ends."""
    door = Handshakes()
    door.accepted(7, 0)
    door.heard(E.HANDSHAKE_SUCCEEDED, 0)
    assert door.ended(7, 9 * S) is None


@pytest.mark.parametrize(("ended_s", "told"), [(0.1, HUNG_UP), (5, SAID_NOTHING)])
def test_who_ran_out_of_time_is_told_from_who_left(ended_s: float, told: str) -> None:
    """A port scanner and a peer that hangs, told as the same."""
    door = Handshakes()
    door.accepted(7, 0)
    door.heard(E.HANDSHAKE_FAILED_NO_DETAIL, 11)
    assert door.ended(7, int(ended_s * S)) == told


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (zmq.PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH, "only one of the two ends"),
        (zmq.PROTOCOL_ERROR_ZMTP_CRYPTOGRAPHIC, "expects another public key"),
        (zmq.PROTOCOL_ERROR_ZMTP_UNSPECIFIED, OTHER_PROTOCOL),
    ],
)
def test_the_reason_is_told(value: int, told: str) -> None:
    """A key that was mixed up, told as a stranger's noise."""
    door = Handshakes()
    door.accepted(7, 0)
    door.heard(E.HANDSHAKE_FAILED_PROTOCOL, value)
    assert told in str(door.ended(7, S))


def test_a_reason_is_told_once() -> None:
    """The next one to end, blamed for what the last one did."""
    door = Handshakes()
    for fd in (7, 8):
        door.accepted(fd, 0)
    door.heard(E.HANDSHAKE_FAILED_NO_DETAIL, 11)
    assert door.ended(8, S) == HUNG_UP
    door.heard(E.HANDSHAKE_SUCCEEDED, 0)
    assert door.ended(7, S) is None


def test_a_refused_key_is_left_to_who_refused_it() -> None:
    """Two lines about one connection, of which one is wrong."""
    door = Handshakes()
    door.accepted(7, 0)
    door.heard(E.HANDSHAKE_FAILED_AUTH, 400)
    assert door.ended(7, S) is None
    door.accepted(8, S)
    assert door.ended(8, S) == OTHER_PROTOCOL


def test_an_end_without_a_beginning() -> None:
    """A connection from before the monitor looked, told as a stranger's."""
    assert Handshakes().ended(7, S) is None
