"""Sockets and pollers, in the words of ZeroMQ, for processes that live in virtual time."""

import struct
from collections import deque
from typing import TYPE_CHECKING

import zmq

from tests.simulation.clock import MS, US, Clock, Process

if TYPE_CHECKING:
    from tests.simulation.network import Network, Wire

IN, OUT = int(zmq.POLLIN), int(zmq.POLLOUT)
"""As plain numbers: half of a simulation's time went into the flags of an enum."""
TURN_NS = 10 * US
"""What a turn of a loop takes, at least."""


class Again(zmq.Again):
    """Raised some hundred times a migration; ZeroMQ's own looks its words up each time."""

    def __init__(self) -> None:
        Exception.__init__(self, "try again")


class Waitable:
    """Something that a poller can wait for; it wakes the process that owns it."""

    def __init__(self, owner: Process | None) -> None:
        self.owner = owner

    def ready(self, flags: int) -> int:
        """Which of the events `flags` there are."""
        raise NotImplementedError

    def notify(self) -> None:
        """There may be something new."""
        if self.owner is not None and not self.owner.ended:
            self.owner.wake()


class Monitor(Waitable):
    """Tells when a connection is lost."""

    lost = closed = False

    def ready(self, flags: int) -> int:
        """Readable once the connection was lost."""
        return IN if self.lost else 0

    def recv_multipart(self, flags: int = 0) -> list[bytes]:
        """The event; Again where there is none."""
        if not self.lost:
            raise Again
        self.lost = False
        return [struct.pack("=hi", zmq.Event.DISCONNECTED, 0), b""]

    def getsockopt(self, option: int) -> int:
        """Its events."""
        return self.ready(option)

    def close(self, linger_ms: int = 0) -> None:
        """Look no more."""
        self.closed = True


class Part:
    """A part of a message that was not copied."""

    def __init__(self, content: bytes) -> None:
        self.bytes = content
        self.buffer = memoryview(content)


class Socket(Waitable):
    """A DEALER, which connects, or a ROUTER, which is bound and names who speaks."""

    def __init__(self, network: "Network", owner: Process) -> None:
        super().__init__(owner)
        owner.at_end.append(self.close)
        self._owner = owner
        self._network = network
        self.inbox: deque[tuple[list[bytes], Wire]] = deque()
        self.wire: Wire | None = None
        self.wires: dict[bytes, Wire] = {}
        self.endpoint = ""
        self.identity = b""
        self.monitor: Monitor | None = None
        self.handshake_ivl = 0
        self.closed = self.ipv6 = self.immediate = False
        self.maxmsgsize = self.linger = self.sndhwm = self.rcvhwm = 0

    def bind(self, endpoint: str) -> None:
        """Listen."""
        self.endpoint = self._network.bind(self, endpoint)

    def connect(self, endpoint: str) -> None:
        """Speak to whoever is bound there, as soon as somebody is."""
        self.wire = self._network.connect(self, endpoint)

    def getsockopt_string(self, option: int) -> str:
        """Where it is bound."""
        return self.endpoint

    def get_monitor_socket(self, events: int) -> Monitor:
        """What tells of a lost connection."""
        self.monitor = Monitor(self.owner)
        return self.monitor

    def disable_monitor(self) -> None:
        """Tell no more."""
        self.monitor = None

    def send(self, body: bytes, flags: int = 0) -> None:
        """One part."""
        self.send_multipart([body], flags)

    def send_multipart(self, parts: list[bytes], flags: int = 0) -> None:
        """Say `parts`; Again where there is no room for them."""
        if self._owner.killed:
            return
        if self.wire is not None:
            if not self.wire.has_room:
                raise Again
            self.wire.say([bytes(part) for part in parts])
        elif (wire := self.wires.get(parts[0])) is not None:
            wire.answer(parts[1:])

    def recv_multipart(self, flags: int = 0, copy: bool = True) -> list[bytes] | list[Part]:
        """The next message; Again where there is none."""
        if not self.inbox or self._owner.killed:
            raise Again
        parts, wire = self.inbox.popleft()
        if self.wire is None:
            wire.was_taken()
        return parts if copy else [Part(part) for part in parts]

    def recv(self, flags: int = 0) -> bytes | Part:
        """The only part of the next message."""
        (body,) = self.recv_multipart(flags)
        return body

    def poll(self, timeout_ms: int = 0) -> int:
        """Whether there is a message, within the time."""
        poller = Poller(self._network.clock)
        poller.register(self, IN)
        return len(poller.poll(timeout_ms))

    def ready(self, flags: int) -> int:
        """Readable with a message, writable with room."""
        events = IN if self.inbox else 0
        if flags & OUT and self.wire is not None and self.wire.has_room:
            events |= OUT
        return events & flags

    def close(self, linger_ms: int = 0) -> None:
        """Be gone; what was said may be on its way. Idempotent."""
        if not self.closed:
            self.closed = True
            self._network.forget(self)


class Poller:
    """Waits for any of what is registered, or for the time."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._watched: dict[Waitable, int] = {}

    def register(self, what: Waitable, flags: int = IN) -> None:
        """Wait for it, too."""
        self._watched[what] = int(flags)

    def unregister(self, what: Waitable) -> None:
        """No more."""
        del self._watched[what]

    def poll(self, timeout_ms: int | None = None) -> list[tuple[Waitable, int]]:
        """What is ready, and for what; nothing, when the time is up."""
        clock, process = self._clock, self._clock.current
        assert process is not None
        found = self._ready()
        if found or timeout_ms == 0:
            clock.sleep(TURN_NS)
            return found
        until_ns = None if timeout_ms is None else clock.now_ns + timeout_ms * MS
        while not found and (until_ns is None or clock.now_ns < until_ns):
            process.park(None if until_ns is None else until_ns - clock.now_ns)
            found = self._ready()
        return found

    def _ready(self) -> list[tuple[Waitable, int]]:
        watched = self._watched.items()
        return [(what, events) for what, flags in watched if (events := what.ready(flags))]
