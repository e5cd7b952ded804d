"""A relay between two ends over tcp, which cuts connections, holds them back and damages them.

The destination listens at 127.0.0.1, the source is told 127.0.0.2: the relay listens there, at
the same ports, and hands on what comes. Of the data ports it hears in the destination's answers.
"""

import re
import socket
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from selectors import EVENT_READ, DefaultSelector
from threading import Event, RLock, Thread
from time import monotonic

from protocol.uri import Uri
from tests.faults.damage import TAIL_BYTES, Damage, FlipsAt

FRONT, BACK = "127.0.0.2", "127.0.0.1"
TURN_S = 0.01
PIECE_BYTES = 1 << 16
HANDSHAKE_BYTES = 107
"""ZMTP: a greeting of 64 bytes, and the READY of a DEALER that has no name."""
OPENING_BYTES = 256
"""Handshake and our hello are shorter; the head of the smallest frame follows."""
_DATA_PORT = re.compile(rb"tcp://127\.0\.0\.1:([0-9]+)")


class Way(Enum):
    """What a connection carries, and from where."""

    QUESTIONS = auto()
    ANSWERS = auto()
    DATA = auto()
    NOTHING = auto()


@dataclass
class Stream:
    """What comes from one socket: where it is handed on, what it is, how much and what was last."""

    target: socket.socket
    way: Way
    port: int
    carried: int = 0
    tail: bytes = b""


class Relay(Thread):
    """Hands on what comes for the destination at `there`, and its answers. A context manager.

    `damage` is done to what data connections carry.
    """

    def __init__(self, there: Uri, damage: Damage | None = None) -> None:
        super().__init__(daemon=True)
        self.uri = Uri("tcp", host=FRONT, port=there.port)
        self._damage = damage or FlipsAt([])
        self._selector = DefaultSelector()
        self._listeners: dict[int, socket.socket] = {}
        self._streams: dict[socket.socket, Stream] = {}
        self._held: list[socket.socket] = []
        self._holding: Way | None = None
        self._closing = Event()
        self._lock = RLock()
        self._closed_until = 0.0
        self.cuts = 0
        self.flipped = 0
        self._listen(there.port)

    def __enter__(self) -> "Relay":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self.join()
        self._cut(lambda _: True)
        for listener in self._listeners.values():
            listener.close()
        self._selector.close()

    def cut_data(self) -> None:
        """Cut every data connection, with what is in it."""
        with self._lock:
            self._cut(lambda way: way is Way.DATA)

    def cut_control(self, for_s: float) -> None:
        """Cut the control connection, and let no new one in for a while."""
        with self._lock:
            self._closed_until = monotonic() + for_s
            self._cut(lambda way: way in (Way.QUESTIONS, Way.ANSWERS))

    def hold(self, way: Way) -> None:
        """Hand on nothing more of what goes this way; of data, nothing after the handshake."""
        with self._lock:
            self._holding = way

    @property
    def held(self) -> int:
        """In how many connections something waits to be handed on."""
        return len(self._held)

    @property
    def holds_frames(self) -> bool:
        """Whether frames wait in a connection, and not only what opens it."""
        with self._lock:
            waiting = [one.recv(2 * OPENING_BYTES, socket.MSG_PEEK) for one in self._held]
            return any(len(data) > OPENING_BYTES for data in waiting)

    def release(self) -> None:
        """Hand on again, first of all what was held and is not cut."""
        with self._lock:
            self._holding = None
            for source in self._held:
                self._selector.register(source, EVENT_READ)
            self._held.clear()

    def run(self) -> None:
        """Hand on until the test is over."""
        while not self._closing.is_set():
            for key, _ in self._selector.select(TURN_S):
                with self._lock:
                    self._serve(key.fileobj, key.data)

    def _listen(self, port: int) -> None:
        if port not in self._listeners:
            self._listeners[port] = socket.create_server((FRONT, port))
            self._selector.register(self._listeners[port], EVENT_READ, port)

    def _serve(self, source: object, port: int | None) -> None:
        assert isinstance(source, socket.socket)
        if port is not None:
            self._accept(source, port)
        elif source in self._streams:
            self._take(source, self._streams[source])

    def _take(self, source: socket.socket, stream: Stream) -> None:
        handshaking = stream.way is Way.DATA and stream.carried < HANDSHAKE_BYTES
        if stream.way is self._holding and not handshaking:
            self._selector.unregister(source)
            self._held.append(source)
        elif not self._has_handed_on(source, stream):
            if stream.way is Way.NOTHING:
                self._look_after(stream.port)
            self._close(source)

    def _look_after(self, port: int) -> None:
        """Where the process there has ended, who connects now is refused, as it would be there."""
        try:
            socket.create_connection((BACK, port), 1).close()
        except OSError:
            listener = self._listeners.pop(port, None)
            if listener is not None:
                self._selector.unregister(listener)
                listener.close()

    def _accept(self, listener: socket.socket, port: int) -> None:
        front, _ = listener.accept()
        is_control = port == self.uri.port
        try:
            if is_control and monotonic() < self._closed_until:
                raise ConnectionRefusedError
            back = socket.create_connection((BACK, port), 1)
        except OSError:
            front.close()
            return
        self._join(front, Stream(back, Way.QUESTIONS if is_control else Way.DATA, port))
        self._join(back, Stream(front, Way.ANSWERS if is_control else Way.NOTHING, port))

    def _join(self, source: socket.socket, stream: Stream) -> None:
        source.settimeout(5)
        self._streams[source] = stream
        self._selector.register(source, EVENT_READ)

    def _has_handed_on(self, source: socket.socket, stream: Stream) -> bool:
        try:
            data = bytearray(source.recv(self._most(stream)))
            if stream.way is Way.DATA:
                self._spoil(data, stream)
            elif stream.way is Way.ANSWERS:
                for port in _DATA_PORT.findall(data):
                    self._listen(int(port))
            stream.target.sendall(data)
        except OSError:
            return False
        return bool(data)

    def _most(self, stream: Stream) -> int:
        is_held = stream.way is self._holding is Way.DATA
        return HANDSHAKE_BYTES - stream.carried if is_held else PIECE_BYTES

    def _spoil(self, data: bytearray, stream: Stream) -> None:
        before = stream.tail
        stream.tail = (before + data)[-TAIL_BYTES:]
        self.flipped += self._damage(data, stream.carried, before)
        stream.carried += len(data)

    def _cut(self, wanted: Callable[[Way], bool]) -> None:
        for source in [one for one, stream in self._streams.items() if wanted(stream.way)]:
            if source in self._streams:
                self.cuts += 1
                self._close(source)

    def _close(self, source: socket.socket) -> None:
        for one in (source, self._streams[source].target):
            del self._streams[one]
            if one in self._held:
                self._held.remove(one)
            else:
                self._selector.unregister(one)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            one.close()
