"""Numbers, acknowledgements and envelopes of control messages."""

from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from protocol.channel import ENVELOPE, REPEATED, Channel, session_of
from protocol.control import Alive, AnyMessage, Commit, RoundStart, encode_message
from protocol.errors import FrameDamaged, RemoteProtocolError
from protocol.limits import MAX_CONTROL_BYTES
from tests.protocol.samples import (
    BY_NAME,
    MESSAGES,
    OTHER_SESSION,
    SESSION,
    forge_envelope,
    single_bit_flips,
)

ALIVE = BY_NAME["Alive"]
GOLDEN = (
    "5047464301000000 0001020304050607 08090a0b0c0d0e0f 0100000000000000 "
    "0100000000000000 bc3ae10aefa4b944 81a474797065a643 6f6d6d6974"
)


def _round(number: int) -> RoundStart:
    return RoundStart(round_no=number, first_seq=number)


def _heard(channel: Channel, envelopes: list[bytes]) -> list[AnyMessage]:
    messages = (channel.incoming(envelope) for envelope in envelopes)
    return [message for message in messages if message is not None]


def test_golden_envelope() -> None:
    """A change of the envelope's layout or digest that nobody meant to make."""
    channel = Channel(SESSION)
    channel.incoming(forge_envelope(encode_message(Commit())))
    envelope = channel.outgoing(Commit())
    assert envelope.hex(" ", -8) == GOLDEN
    assert session_of(envelope) == SESSION


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: type(m).__name__)
def test_every_message_comes_across(message: AnyMessage) -> None:
    """A message that one end can say and the other cannot hear."""
    assert Channel(SESSION).incoming(Channel(SESSION).outgoing(message)) == message


def test_numbers_are_dense_and_alive_has_none() -> None:
    """A heartbeat that uses up a number, so that its loss looks like a gap."""
    channel = Channel(SESSION)
    envelopes = [channel.outgoing(m) for m in (_round(1), ALIVE, _round(2))]
    assert [ENVELOPE.unpack_from(e)[4] for e in envelopes] == [1, 0, 2]


def test_a_duplicate_is_dropped() -> None:
    """A commit that starts a guest twice because it was repeated."""
    source, destination = Channel(SESSION), Channel(SESSION)
    envelope = source.outgoing(Commit())
    assert _heard(destination, [envelope, envelope]) == [Commit()]


def test_what_follows_a_gap_is_dropped_until_it_is_repeated() -> None:
    """A lost message that nobody misses."""
    source, destination = Channel(SESSION), Channel(SESSION)
    first, second = source.outgoing(_round(1)), source.outgoing(_round(2))
    assert destination.incoming(second) is None
    assert _heard(destination, source.unacknowledged()) == [_round(1), _round(2)]
    assert destination.incoming(first) is None


def test_not_all_is_repeated_at_once() -> None:
    """A peer that is slow, drowned in what it has not come to yet."""
    source, destination = Channel(SESSION), Channel(SESSION)
    for number in range(1, REPEATED + 2):
        source.outgoing(_round(number))
    assert source.first_unacknowledged == 1
    assert len(_heard(destination, source.unacknowledged())) == REPEATED
    source.incoming(destination.outgoing(Alive()))
    assert source.first_unacknowledged == REPEATED + 1
    assert _heard(destination, source.unacknowledged()) == [_round(REPEATED + 1)]


def test_an_acknowledgement_drops_what_it_covers() -> None:
    """Messages kept for ever, or dropped before they were heard."""
    source, destination = Channel(SESSION), Channel(SESSION)
    first = source.outgoing(_round(1))
    source.outgoing(_round(2))
    destination.incoming(first)
    source.incoming(destination.outgoing(ALIVE))
    assert _heard(destination, source.unacknowledged()) == [_round(2)]
    assert len(source.unacknowledged()) == 1


def test_an_acknowledgement_of_what_was_never_sent_is_refused() -> None:
    """A peer that silences messages not yet sent."""
    channel = Channel(SESSION)
    channel.outgoing(_round(1))
    with pytest.raises(RemoteProtocolError, match="2 acknowledged, 1 sent"):
        channel.incoming(forge_envelope(encode_message(Commit()), acknowledged=2))
    assert len(channel.unacknowledged()) == 1


@pytest.mark.parametrize(
    ("message", "number", "found"),
    [(Commit(), 0, "Commit with number 0"), (ALIVE, 1, "Alive with number 1")],
)
def test_only_alive_is_unnumbered(message: AnyMessage, number: int, found: str) -> None:
    """A commit without a number, which would be heard each time it comes."""
    with pytest.raises(RemoteProtocolError, match=found):
        Channel(SESSION).incoming(forge_envelope(encode_message(message), number=number))


BODY = encode_message(Commit())


@pytest.mark.parametrize(
    ("envelope", "found"),
    [
        (forge_envelope(BODY, session=OTHER_SESSION), "another session"),
        (forge_envelope(BODY, magic=b"PGFY"), "not a pageferry control message"),
        (forge_envelope(BODY, version=2), "wrong version 2 .* speaks 1"),
        (forge_envelope(BODY, flags=1), "unknown flags 0x1"),
        (forge_envelope(b""), "of 48 bytes"),
        (forge_envelope(bytes(MAX_CONTROL_BYTES - 47)), "of 1048577 bytes"),
        (forge_envelope(BODY + b"\0"), "trailing"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_wrong_envelope_is_refused_by_name(envelope: bytes, found: str) -> None:
    """A check left out, or one that does not say what it found."""
    with pytest.raises(RemoteProtocolError, match=found) as caught:
        Channel(SESSION).incoming(envelope)
    assert not isinstance(caught.value, FrameDamaged)


def test_the_session_is_told_before_there_is_a_channel() -> None:
    """A first message that is believed before its digest was looked at."""
    assert session_of(forge_envelope(BODY, session=OTHER_SESSION)) == OTHER_SESSION
    with pytest.raises(FrameDamaged):
        session_of(forge_envelope(BODY)[:-1])


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: type(m).__name__)
def test_a_flipped_bit_is_found_wherever_it_is(message: AnyMessage) -> None:
    """A part of the envelope that the digest does not cover."""
    for damaged in single_bit_flips(Channel(SESSION).outgoing(message)):
        with pytest.raises(FrameDamaged):
            Channel(SESSION).incoming(damaged)


def test_a_cut_envelope_is_refused_and_junk_behind_too() -> None:
    """A length that is taken on trust."""
    whole = Channel(SESSION).outgoing(BY_NAME["Hello"])
    for damaged in [whole[:end] for end in range(len(whole))] + [whole + b"\0"]:
        with pytest.raises(RemoteProtocolError):
            Channel(SESSION).incoming(damaged)


@given(st.binary(max_size=200))
def test_garbage_is_a_remote_protocol_error(garbage: bytes) -> None:
    """An exception of another kind that ends the process instead of the session."""
    for envelope in (garbage, forge_envelope(garbage)):
        with pytest.raises(RemoteProtocolError):
            Channel(SESSION).incoming(envelope)


class CutLink(RuleBasedStateMachine):
    """Two channels whose link may be cut anywhere; then both send again what is not acknowledged.

    A message lost, heard twice or out of order over a reconnect.
    """

    def __init__(self) -> None:
        super().__init__()
        self.ends = (Channel(SESSION), Channel(SESSION))
        self.links: tuple[deque[bytes], deque[bytes]] = (deque(), deque())
        self.said: tuple[list[AnyMessage], list[AnyMessage]] = ([], [])
        self.heard: tuple[list[AnyMessage], list[AnyMessage]] = ([], [])

    @rule(end=st.integers(0, 1))
    def say(self, end: int) -> None:
        """A numbered message goes onto the link."""
        message = _round(len(self.said[end]) + 1)
        self.said[end].append(message)
        self.links[end].append(self.ends[end].outgoing(message))

    @rule(end=st.integers(0, 1))
    def beat(self, end: int) -> None:
        """A heartbeat goes onto the link, with the acknowledgement."""
        self.links[end].append(self.ends[end].outgoing(ALIVE))

    @precondition(lambda self: any(self.links))
    @rule(data=st.data())
    def deliver(self, data: st.DataObject) -> None:
        """The oldest envelope of one direction arrives."""
        self._deliver(data.draw(st.sampled_from([n for n in (0, 1) if self.links[n]])))

    def _deliver(self, end: int) -> None:
        message = self.ends[1 - end].incoming(self.links[end].popleft())
        if message is not None and message != ALIVE:
            self.heard[end].append(message)

    @rule(lost=st.integers(0, 3))
    def cut(self, lost: int) -> None:
        """All that is on the link is gone but for the first few; the ends connect anew."""
        for end in (0, 1):
            while len(self.links[end]) > lost:
                self.links[end].pop()
            self.links[end].extend(self.ends[end].unacknowledged())

    @invariant()
    def heard_is_a_prefix(self) -> None:
        """What was heard is what was said first, each once."""
        for said, heard in zip(self.said, self.heard, strict=True):
            assert heard == said[: len(heard)]

    def teardown(self) -> None:
        """After one more reconnect and two heartbeats all is heard and acknowledged."""
        self.cut(0)
        for end in (0, 1, 0, 1):
            self.beat(end)
            while self.links[end]:
                self._deliver(end)
        assert self.heard == self.said
        assert not any(end.unacknowledged() for end in self.ends)


TestCutLink = CutLink.TestCase
TestCutLink.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
