"""What a process that stands for an end hears of the command that started it."""

import socket
from collections.abc import Iterator

import pytest

from pipeline.streams.leash import OVER, Leash, LeashCut
from workers.memory import PassedFd

Pair = tuple[Leash, socket.socket]


@pytest.fixture(name="pair")
def _pair() -> Iterator[Pair]:
    """The process's end, and the command's."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    leash = Leash(PassedFd(theirs.detach()))
    with ours, leash.socket:
        yield leash, ours


def test_it_is_over_when_the_command_says_so(pair: Pair) -> None:
    """A command that lives, taken for a dead one: its folder would be removed under it."""
    leash, command = pair
    leash.check()
    command.send(OVER)
    with pytest.raises(LeashCut):
        leash.check()
    assert not leash.is_orphan


@pytest.mark.parametrize("last_word", ["", "the stream ended"])
def test_it_is_over_when_the_command_has_ended(pair: Pair, last_word: str) -> None:
    """An error instead of an end, where the command has not heard the last word."""
    leash, command = pair
    if last_word:
        leash.say(last_word)
    command.close()
    with pytest.raises(LeashCut):
        leash.check()
    assert leash.is_orphan
