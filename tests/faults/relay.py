"""A relay between two ends over tcp, which cuts connections, holds them back and flips bits.

The destination listens at 127.0.0.1, the source is told 127.0.0.2: the relay listens there, at
the same ports, and hands on what comes.
"""

import socket
from collections.abc import Callable
from contextlib import suppress
from selectors import EVENT_READ, DefaultSelector
from threading import Event, Lock, Thread
from time import monotonic

import psutil

from protocol.uri import Uri

FRONT, BACK = "127.0.0.2", "127.0.0.1"
TURN_S = 0.01
LOOK_S = 0.05
PIECE_BYTES = 1 << 16


class Relay(Thread):
    """Hands on between the source and the ports of process `pid` and its children.

    `flip_at`: offsets in what each data connection carries from the source on at which a bit is
    flipped, once each. A context manager.
    """

    def __init__(self, there: Uri, pid: int, flip_at: tuple[int, ...] = ()) -> None:
        super().__init__(daemon=True)
        self.uri = Uri("tcp", host=FRONT, port=there.port)
        self._control_port = there.port
        self._process = psutil.Process(pid)
        self._flips = list(flip_at)
        self._selector = DefaultSelector()
        self._listeners: dict[int, socket.socket] = {}
        self._pairs: dict[socket.socket, tuple[socket.socket, int, bool]] = {}
        self._carried: dict[socket.socket, int] = {}
        self._closing = Event()
        self._lock = Lock()
        self._held_until = 0.0
        self.cuts = 0
        self.flipped = 0

    def __enter__(self) -> "Relay":
        self._listen(self._control_port)
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self.join()
        self._cut(lambda _: True)
        for listener in self._listeners.values():
            listener.close()
        self._selector.close()

    def cut_data(self) -> bool:
        """Cut every data connection, with what is in it; whether there was one."""
        with self._lock:
            self._cut(lambda port: port != self._control_port)
            return self.cuts > 0

    def cut_control(self, for_s: float) -> bool:
        """Cut the control connection, and let no new one in for a while."""
        with self._lock:
            self._held_until = monotonic() + for_s
            self._cut(lambda port: port == self._control_port)
            return True

    def run(self) -> None:
        """Hand on until the test is over."""
        looked_s = 0.0
        while not self._closing.is_set():
            if monotonic() - looked_s > LOOK_S:
                looked_s = monotonic()
                self._look_for_ports()
            for key, _ in self._selector.select(TURN_S):
                with self._lock:
                    self._serve(key.fileobj, key.data)

    def _look_for_ports(self) -> None:
        with suppress(psutil.Error):
            for process in (self._process, *self._process.children(recursive=True)):
                for connection in process.net_connections("tcp"):
                    listens = connection.status == psutil.CONN_LISTEN
                    if listens and connection.laddr.ip.endswith(BACK):
                        self._listen(connection.laddr.port)

    def _listen(self, port: int) -> None:
        if port in self._listeners:
            return
        listener = socket.create_server((FRONT, port))
        self._listeners[port] = listener
        self._selector.register(listener, EVENT_READ, port)

    def _serve(self, source: object, port: int | None) -> None:
        assert isinstance(source, socket.socket)
        if port is not None:
            self._accept(source, port)
        elif source in self._pairs:
            self._hand_on(source)

    def _accept(self, listener: socket.socket, port: int) -> None:
        front, _ = listener.accept()
        if port == self._control_port and monotonic() < self._held_until:
            front.close()
            return
        try:
            back = socket.create_connection((BACK, port), 1)
        except OSError:
            front.close()
            return
        for one, other, forth in ((front, back, True), (back, front, False)):
            one.settimeout(5)
            self._pairs[one] = (other, port, forth)
            self._carried[one] = 0
            self._selector.register(one, EVENT_READ)

    def _hand_on(self, source: socket.socket) -> None:
        target, port, forth = self._pairs[source]
        try:
            data = bytearray(source.recv(PIECE_BYTES))
            if data and forth and port != self._control_port:
                self._flip(source, data)
            target.sendall(data)
        except OSError:
            data = bytearray()
        if not data:
            self._close(source)

    def _flip(self, source: socket.socket, data: bytearray) -> None:
        start = self._carried[source]
        self._carried[source] += len(data)
        for offset in [at for at in self._flips if start <= at < start + len(data)]:
            self._flips.remove(offset)
            data[offset - start] ^= 0x10
            self.flipped += 1

    def _cut(self, wanted: Callable[[int], bool]) -> None:
        for source in [one for one, (_, port, _) in self._pairs.items() if wanted(port)]:
            if source in self._pairs:
                self.cuts += 1
                self._close(source)

    def _close(self, source: socket.socket) -> None:
        target, _, _ = self._pairs[source]
        for one in (source, target):
            self._pairs.pop(one, None)
            self._carried.pop(one, None)
            self._selector.unregister(one)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            one.close()
