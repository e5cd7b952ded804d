"""What a pool and its workers say to each other survives the way."""

from typing import get_args

import msgspec
import pytest

from workers import messages as m

TO_WORKER: list[m.ToWorker] = [
    m.Connect(["ipc:///a", "tcp://127.0.0.1:1"]),
    m.SendJob(2**63, 1, 2, 3, 4, True, "zstd", 5, b"\1\0\0\0"),
    m.ScanJob(1, 2, 3, 4),
    m.Grant([0, 7]),
    m.ReadBack(1, 2, b"\1\0\0\0"),
    m.Reconnect(1),
    m.Ping(),
    m.Stop(),
]
FROM_WORKER: list[m.FromWorker] = [
    m.Up("ipc:///a"),
    m.Sent(1, 2, 3, 4, 5, 6, False, 7, 8, 9),
    m.Unsent(1, 2, "why"),
    m.Scanned(1, b"\1\0\0\0", 2),
    m.Arrived(1, 2, 3, 4, 5, b"\1\0\0\0", b"\2", None, 6),
    m.Arrived(1, 2, 3, 4, 5, b"", b"", b"12345678", 6),
    m.Checked(1, b""),
    m.Refused("why", True, 7),
    m.Cut(1),
    m.Pong(),
    m.TurnedAway("192.0.2.1:1", "no key"),
    m.Broken("GuestError", "gone"),
]


def test_every_message_comes_back_as_itself() -> None:
    """Two classes with one tag, or fields in another order at the other end."""
    for message in TO_WORKER:
        assert m.decode_to_worker(m.encode(message)) == message
    for answer in FROM_WORKER:
        assert m.decode_from_worker(m.encode(answer)) == answer
    assert {type(message) for message in TO_WORKER} == set(get_args(m.ToWorker))
    assert {type(message) for message in FROM_WORKER} == set(get_args(m.FromWorker))


def test_a_message_of_the_other_direction_is_an_error() -> None:
    """A worker that does as another worker says."""
    with pytest.raises(msgspec.ValidationError):
        m.decode_to_worker(m.encode(m.Up("")))
    with pytest.raises(msgspec.ValidationError):
        m.decode_from_worker(m.encode(m.Stop()))
