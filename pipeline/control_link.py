"""The control connection: one ZeroMQ socket around a Channel, a Session and a Liveness.

Decides nothing: what is legal is the session's, what is a duplicate the channel's,
when the peer is lost the liveness's business.
"""

from collections import deque
from collections.abc import Container, Iterator
from contextlib import suppress
from pathlib import Path
from time import monotonic_ns

import zmq

from pipeline.liveness import SILENCE_SECONDS, Liveness, Repetition
from pipeline.reception import Reception
from pipeline.strangers import Strangers, refusal
from pipeline.unix_sockets import check_free
from protocol.channel import Channel, session_of
from protocol.control import Alive, AnyMessage, Cancel, Failed, Hello
from protocol.errors import ConfigError, FrameDamaged, PeerLost, RemoteProtocolError
from protocol.limits import MAX_CONTROL_BYTES
from protocol.session import Role, Session
from protocol.uri import Uri, plain_endpoint
from workers.door import Door
from workers.keys import ClientKeys, ServerKeys, secure_client
from workers.link import bind_privately, remove_socket
from workers.messages import TurnedAway

Context = zmq.Context[zmq.Socket[bytes]]
MEET_SECONDS = 30.0
"""For the command of a byte stream to log in somewhere, and to start a destination there."""
LINGER_MS = 500
"""How long a last word may take to leave; a cancel has a second in all."""


class ControlLink:
    """One end of the control connection; owned by the thread that made it."""

    def __init__(self, role: Role, socket: zmq.Socket[bytes], uri: Uri) -> None:
        self.socket = socket
        self._uri = uri
        self._door: Door | None = None
        self._reception: Reception | None = None
        self.turned_away: deque[TurnedAway] = deque()
        """Who was not let in, until somebody tells of it."""
        self._route: list[bytes] = []
        self._was_heard = False
        self._channel: Channel | None = None
        self.session = Session(role)
        self._peer_name = "source" if role == "destination" else "destination"
        self._liveness = Liveness(monotonic_ns())
        self._repetition = Repetition(monotonic_ns())
        self._strangers = Strangers()
        self.patience_s = SILENCE_SECONDS

    @classmethod
    def connect(
        cls, context: Context, uri: Uri, session_id: bytes, keys: ClientKeys | None = None
    ) -> "ControlLink":
        """The source's end; a destination that is not there yet is waited for.

        ConfigError for an address that nobody can be reached at.
        """
        socket = _socket(context, zmq.DEALER)
        secure_client(socket, keys)
        link = cls("source", socket, uri)
        if uri.scheme == "tcp":
            link._reception = Reception(
                socket, (uri.host, uri.port), keys.pair.public if keys else None
            )
        try:
            socket.connect(uri.endpoint)
        except zmq.ZMQError as error:
            link.close()
            raise ConfigError(
                f"uri: cannot connect to {uri}: {zmq.strerror(error.errno or 0)}"
            ) from None
        link._channel = Channel(session_id)
        if uri.is_stream:
            link.patience_s = MEET_SECONDS
        return link

    @classmethod
    def bind(cls, context: Context, uri: Uri, keys: ServerKeys | None = None) -> "ControlLink":
        """The destination's end; ConfigError where the address cannot be had."""
        if uri.scheme == "unix":
            check_free(Path(uri.path), "uri")
        socket = _socket(context, zmq.ROUTER)
        door = Door(context, socket, keys) if uri.scheme == "tcp" else None
        try:
            bind_privately(socket, uri.endpoint)
        except zmq.ZMQError as error:
            if door is not None:
                door.close()
            socket.close()
            raise ConfigError(
                f"uri: cannot listen on {uri}: {zmq.strerror(error.errno or 0)}"
            ) from None
        link = cls("destination", socket, uri)
        link._door = door
        if door is not None:
            door.is_bound(link.endpoint)
        return link

    @property
    def endpoint(self) -> str:
        """Where this end is bound."""
        return plain_endpoint(self.socket.getsockopt_string(zmq.LAST_ENDPOINT))

    @property
    def sockets(self) -> list[zmq.Socket[bytes]]:
        """What to wait for: where one of them can be read, `receive` is due."""
        beside = self._door.sockets if self._door else []
        return [self.socket, *beside, *([self._reception.monitor] if self._reception else [])]

    def is_in(self, ready: Container[object]) -> bool:
        """Whether a poll has found something for this link."""
        return any(socket in ready for socket in self.sockets)

    @property
    def session_id(self) -> bytes:
        """The 16 bytes that name the session; empty before a source has come."""
        return self._channel.session if self._channel else b""

    @property
    def heard_ns(self) -> int:
        """When the peer was heard last, in monotonic ns."""
        return self._liveness.heard_ns

    @property
    def all_acknowledged(self) -> bool:
        """Whether the peer has heard everything."""
        return self._channel is None or self._channel.first_unacknowledged is None

    def send(self, message: AnyMessage) -> None:
        """Say `message`; LocalProtocolError where the session forbids it."""
        assert self._channel is not None, "nobody to talk to yet"
        self.session.send(message)
        self._liveness.spoke(monotonic_ns())
        self._say([*self._route, self._channel.outgoing(message)])

    def _say(self, parts: list[bytes]) -> None:
        """What finds no connection is repeated; a refused one never comes back, and is no place
        to wait at."""
        with suppress(zmq.Again):
            self.socket.send_multipart(parts, zmq.NOBLOCK)

    def receive(self) -> Iterator[AnyMessage]:
        """What the peer has said by now, in order, each once.

        Where it has a new connection, the answers go there from now on: who knows the session
        is the peer.
        """
        if self._door is not None:
            self.turned_away += self._door.attend()
        if self._reception is not None:
            self._reception.look()
        while True:
            try:
                *route, envelope = self.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            message = self._maybe_open(route, envelope)
            if message is not None:
                self.session.receive(message)
                yield message

    def _maybe_open(self, route: list[bytes], envelope: bytes) -> AnyMessage | None:
        if self._channel is None:
            self._accept(route, envelope)
        if self._channel is None:
            return None
        try:
            message = self._channel.incoming(envelope)
        except RemoteProtocolError as error:
            if route != self._route:
                answer = self._strangers.maybe_answer(envelope, self.session_id, monotonic_ns())
                if answer is not None:
                    self._say([*route, answer])
                return None
            if isinstance(error, FrameDamaged):
                return None  # it will be repeated
            raise
        if not self._was_heard:
            self.patience_s = SILENCE_SECONDS
        self._route, self._was_heard = route, True
        self._liveness.heard(monotonic_ns())
        return message

    def _accept(self, route: list[bytes], envelope: bytes) -> None:
        """The first that says hello is the source; others are not heard."""
        try:
            channel = Channel(session_of(envelope))
            is_hello = isinstance(Channel(channel.session).incoming(envelope), Hello)
        except FrameDamaged:
            return  # it will be repeated
        except RemoteProtocolError as error:
            self._say([*route, refusal(envelope, str(error))])
            return
        if is_hello:
            self._route, self._channel = route, channel

    def end(self, ending: Cancel | Failed) -> None:
        """Tell the peer that it is over, where it is there and does not know."""
        if self.session.owes_ending:
            self.send(ending)

    def tick(self, now_ns: int) -> None:
        """As `beat`; and PeerLost when the other end is silent."""
        self.beat(now_ns)
        lost = self._liveness.is_lost(now_ns, self.patience_s)
        refused = self._reception is not None and self._reception.refusal is not None
        if self._channel is not None and (lost or (refused and not self._was_heard)):
            raise PeerLost(self._silence())

    def beat(self, now_ns: int) -> None:
        """Repeat what seems lost, send a heartbeat when one is due."""
        if self._channel is None:
            return
        if self._repetition.is_due(now_ns, self._channel.first_unacknowledged):
            for envelope in self._channel.unacknowledged():
                self._say([*self._route, envelope])
        if self._liveness.owes_heartbeat(now_ns):
            self.send(Alive())

    def _silence(self) -> str:
        if not self._was_heard:
            seen = self._reception
            if seen is not None and seen.refusal:
                return f"the destination at {self._uri} refuses the connection: {seen.refusal}"
            why = seen and seen.suspicion
            return f"nobody answers at {self._uri}: {why or 'is a destination there, and free?'}"
        return f"the {self._peer_name} is gone: nothing heard for {self.patience_s:g} s"

    def await_commit(self, timeout_s: float) -> None:
        """From `Ready` on silence is borne for the commit's timeout, if that is longer."""
        self.patience_s = max(SILENCE_SECONDS, timeout_s)

    def close(self) -> None:
        """Let the last word leave, then go. Idempotent."""
        if self.session.role == "destination" and not self.socket.closed:
            remove_socket(self.endpoint)
        for watched in (self._door, self._reception):
            if watched is not None:
                watched.close()
        self.socket.close(LINGER_MS)


def _socket(context: Context, kind: int) -> zmq.Socket[bytes]:
    socket = context.socket(kind)
    socket.ipv6 = True
    socket.maxmsgsize = MAX_CONTROL_BYTES
    return socket
