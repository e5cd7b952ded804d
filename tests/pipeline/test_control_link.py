"""The control connection: two ends that hear each other, and nobody else."""

import socket as plain
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
import zmq

from pipeline.control_link import Context, ControlLink
from pipeline.strangers import BUSY
from protocol import control as c
from protocol.channel import Channel
from protocol.errors import ConfigError, LocalProtocolError, PeerLost, RemoteProtocolError
from protocol.limits import EXTENTS_A_MESSAGE, MAX_CONTROL_BYTES
from protocol.session import Stage
from protocol.uri import parse_uri
from tests.pipeline.clocks import Clock
from tests.protocol.samples import BY_NAME, OTHER_SESSION, SESSION, forge_envelope

PATIENCE_MS = 20_000
HELLO, WELCOME = BY_NAME["Hello"], BY_NAME["Welcome"]
ROUND = BY_NAME["RoundStart"]


@pytest.fixture
def context(folder: Path) -> Iterator[Context]:
    """A ZeroMQ context; nothing may be left in the end."""
    assert folder.is_dir()
    made: Context = zmq.Context()
    yield made
    made.destroy(linger=0)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The time, as the links see it."""
    return Clock(monkeypatch, "pipeline.control_link")


@dataclass
class Ends:
    """Both ends of one connection."""

    source: ControlLink
    destination: ControlLink

    def greet(self) -> None:
        """Hello and welcome."""
        self.source.send(HELLO)
        assert hear(self.destination) == HELLO
        self.destination.send(WELCOME)
        assert hear(self.source) == WELCOME


@pytest.fixture
def ends(context: Context, folder: Path, clock: Clock) -> Iterator[Ends]:
    """Two ends over a UNIX socket, which have not said anything yet."""
    assert clock
    uri = parse_uri(f"unix:{folder / 'control'}")
    with (
        closing(ControlLink.bind(context, uri)) as destination,
        closing(ControlLink.connect(context, uri, SESSION)) as source,
    ):
        yield Ends(source, destination)


@pytest.fixture
def stranger(context: Context, folder: Path) -> Iterator[zmq.Socket[bytes]]:
    """A bare connection to the destination."""
    with closing(context.socket(zmq.DEALER)) as socket:
        socket.linger = 0
        socket.connect(f"ipc://{folder / 'control'}")
        yield socket


def hear(link: ControlLink) -> c.AnyMessage:
    """The next message."""
    while True:
        assert link.socket.poll(PATIENCE_MS), "no message in time"
        for message in link.receive():
            return message


def say_to_nobody(link: ControlLink, message: c.AnyMessage) -> bytes:
    """The envelope of what a link says, which does not arrive."""
    link.session.send(message)
    assert link._channel is not None
    return link._channel.outgoing(message)


def listen(link: ControlLink, clock: Clock, ms: int) -> None:
    """Let time pass in which the end looks at its clock all the while."""
    for start in range(0, ms, 500):
        clock.forward(min(500, ms - start))
        link.tick(clock.now_ns)


def is_deaf(link: ControlLink) -> bool:
    """Whether what has arrived is not for this link, and no error either."""
    assert link.socket.poll(PATIENCE_MS), "nothing arrived"
    return not list(link.receive())


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
    listen(link, clock, 4999)
    clock.forward(1)
    with pytest.raises(PeerLost, match=f"{who}: nothing heard for 5 s"):
        link.tick(clock.now_ns)


def test_a_peer_that_is_heard_is_not_lost(ends: Ends, clock: Clock) -> None:
    """Our own heartbeats taken for signs of life of the other end."""
    ends.greet()
    for _ in range(3):
        listen(ends.source, clock, 4000)
        ends.destination.send(c.Alive())
        assert hear(ends.source) == c.Alive()
        ends.source.tick(clock.now_ns)
    listen(ends.source, clock, 4999)
    clock.forward(1)
    with pytest.raises(PeerLost):
        ends.source.tick(clock.now_ns)


def test_patience_grows_with_the_commit_timeout(ends: Ends, clock: Clock) -> None:
    """A guest whose load takes ten seconds, given up after five."""
    ends.greet()
    ends.source.patience_s = 30
    listen(ends.source, clock, 29_999)
    clock.forward(1)
    with pytest.raises(PeerLost, match="for 30 s"):
        ends.source.tick(clock.now_ns)


def test_waiting_for_a_source_is_no_standing_still(ends: Ends, clock: Clock) -> None:
    """A source that says hello and dies, and is waited for as long as it was before."""
    listen(ends.destination, clock, 20_000)
    ends.greet()
    listen(ends.destination, clock, 4999)
    clock.forward(1)
    with pytest.raises(PeerLost):
        ends.destination.tick(clock.now_ns)


def test_time_in_which_we_stood_still_is_no_silence(ends: Ends, clock: Clock) -> None:
    """A process that was stopped for a minute, and calls the other end gone when it goes on."""
    ends.greet()
    listen(ends.source, clock, 4000)
    clock.forward(60_000)
    ends.source.tick(clock.now_ns)
    listen(ends.source, clock, 999)
    clock.forward(1)
    with pytest.raises(PeerLost):
        ends.source.tick(clock.now_ns)


def test_a_destination_without_a_source_waits_as_long_as_it_takes(ends: Ends, clock: Clock) -> None:
    """An incoming end that gives up, or loses its source in the second in which it comes."""
    for _ in range(20):
        clock.forward(10_000)
        ends.destination.tick(clock.now_ns)
    ends.greet()
    clock.forward(4000)
    ends.destination.tick(clock.now_ns)


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


def test_an_address_that_is_taken_is_the_users_mistake(ends: Ends, context: Context) -> None:
    """A second destination on the first one's address: it takes over its socket."""
    path = ends.destination.endpoint.removeprefix("ipc://")
    with pytest.raises(ConfigError, match="somebody does"):
        ControlLink.bind(context, parse_uri(f"unix:{path}"))
    ends.greet()


def test_a_port_that_is_taken_is_the_users_mistake(context: Context) -> None:
    """A traceback of ZeroMQ's instead of a line."""
    with plain.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"cannot listen on tcp:127.0.0.1:{port}: Address"):
            ControlLink.bind(context, parse_uri(f"tcp:127.0.0.1:{port}"))


def test_a_file_in_the_way_is_left_alone(context: Context, folder: Path) -> None:
    """A guest's memory deleted because its path was given as the address."""
    path = folder / "precious"
    path.write_text("data")
    with pytest.raises(ConfigError, match="is a file or folder"):
        ControlLink.bind(context, parse_uri(f"unix:{path}"))
    assert path.read_text() == "data"
    path.unlink()


def test_a_socket_that_nobody_listens_on_is_taken_over(context: Context, folder: Path) -> None:
    """A destination that was killed, and whose address cannot be used again."""
    path = folder / "control"
    with plain.socket(plain.AF_UNIX) as dead:
        dead.bind(str(path))
    with closing(ControlLink.bind(context, parse_uri(f"unix:{path}"))) as link:
        assert link.endpoint == f"ipc://{path}"


def test_a_free_port_is_picked_and_told(context: Context) -> None:
    """Port 0 told to the source as 0."""
    with closing(ControlLink.bind(context, parse_uri("tcp:127.0.0.1:0"))) as link:
        host, port = link.endpoint.rsplit(":", 1)
        assert "127.0.0.1" in host
        assert int(port) > 0


@pytest.mark.parametrize("uri", ["tcp:127.0.0.1:0", "tcp:127.0.0.1.1.1:0"])
def test_an_address_that_nobody_can_be_at(context: Context, uri: str) -> None:
    """A traceback of ZeroMQ for a user's mistake."""
    with pytest.raises(ConfigError, match="uri: cannot connect to tcp:"):
        ControlLink.connect(context, parse_uri(uri), SESSION)


def test_where_it_listens_is_told_as_people_write_it(context: Context) -> None:
    """A user who copies the address of the log and gets an IPv6 one for an IPv4 one."""
    with closing(ControlLink.bind(context, parse_uri("tcp:127.0.0.1:0"))) as link:
        assert link.endpoint.startswith("tcp://127.0.0.1:")
