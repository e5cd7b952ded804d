"""Connections between sockets, which lose, delay, double, damage and cut.

A message keeps its place in its connection. What is on its way when that is cut is lost; what
is said while it is down waits for the next one, in which this end has another name.
"""

from functools import partial
from random import Random
from typing import Literal

from tests.simulation.clock import MS, Clock
from tests.simulation.sockets import Socket
from tests.simulation.story import Story
from tests.simulation.weather import LOCAL, Weather

RECONNECT_NS = 100 * MS
FAR = Weather(delay_ns=300 * MS)
Kind = Literal["local", "control", "data"]


class Wire:
    """One connection of a DEALER, cut and made anew any number of times."""

    def __init__(self, network: "Network", dealer: Socket, endpoint: str, kind: Kind) -> None:
        self._network = network
        self.dealer = dealer
        self.endpoint = endpoint
        self.kind = kind
        self.router: Socket | None = None
        self.name = b""
        self.epoch = 0
        self.waiting: list[list[bytes]] = []
        self.untaken = 0
        self.arrives_ns = {True: 0, False: 0}

    @property
    def has_room(self) -> bool:
        """Whether its queues take another message."""
        if self.dealer.immediate and self.router is None:
            return False
        return not self.dealer.sndhwm or self.untaken < self.dealer.sndhwm

    def say(self, parts: list[bytes]) -> None:
        """From the dealer."""
        self.untaken += 1
        if self.router is None:
            self.waiting.append(parts)
        else:
            self._network.carry(self, self.router, [self.name, *parts])

    def answer(self, parts: list[bytes]) -> None:
        """From the router."""
        self._network.carry(self, self.dealer, parts)

    def was_taken(self) -> None:
        """The other end has read a message."""
        self.untaken = max(0, self.untaken - 1)  # it may be older than the last cut
        if self.dealer.sndhwm:
            self.dealer.notify()


class Network:
    """All connections, inside the machines and between them; `weather` is that between them."""

    def __init__(self, clock: Clock, dice: Random, story: Story) -> None:
        self.clock = clock
        self._dice = dice
        self._story = story
        self.weather: dict[Kind, Weather] = {"local": LOCAL, "control": FAR, "data": FAR}
        self._quiet_ns: dict[Kind, int] = {"local": 0, "control": 0, "data": 0}
        self._bound: dict[str, Socket] = {}
        self._numbers = 0
        self.wires: list[Wire] = []

    def _number(self) -> int:
        self._numbers += 1
        return self._numbers

    def bind(self, router: Socket, endpoint: str) -> str:
        """Who connects to `endpoint` speaks to `router`; the endpoint, with its port."""
        endpoint = endpoint.replace("*", str(10_000 + self._number()))
        self._bound[endpoint] = router
        for wire in self.wires:
            if wire.endpoint == endpoint:
                self._connect_within(wire, RECONNECT_NS)
        return endpoint

    def connect(self, dealer: Socket, endpoint: str) -> Wire:
        """A connection, made as soon as somebody is bound at `endpoint`."""
        local = endpoint.startswith("ipc")
        kind: Kind = "local" if local else "data" if dealer.sndhwm else "control"
        wire = Wire(self, dealer, endpoint, kind)
        self.wires.append(wire)
        self._connect_within(wire, self.weather[kind].delay_ns)
        return wire

    def _connect_within(self, wire: Wire, delay_ns: int) -> None:
        quiet_ns = max(0, self._quiet_ns[wire.kind] - self.clock.now_ns)
        delay_ns = quiet_ns + int(delay_ns * self._dice.random())
        self.clock.after(delay_ns, partial(self._establish, wire))

    def _establish(self, wire: Wire) -> None:
        router = self._bound.get(wire.endpoint)
        if router is None or wire.router is not None or wire.dealer.closed:
            return
        wire.name = wire.dealer.identity or self._number().to_bytes(5, "big")
        wire.router, router.wires[wire.name] = router, wire
        wire.dealer.notify()
        waiting, wire.waiting = wire.waiting, []
        for parts in waiting:
            self.carry(wire, router, [wire.name, *parts])

    def carry(self, wire: Wire, to: Socket, parts: list[bytes]) -> None:
        """Have a message arrive, or not."""
        weather, now_ns, to_router = self.weather[wire.kind], self.clock.now_ns, to is wire.router
        copies = weather.copies(self._dice)
        if copies != 1:
            fate = "doubled" if copies else "lost"
            self._story.tell(fate, "a {} message is {}", wire.kind, fate)
        if to_router:
            wire.untaken += copies - 1
        for _ in range(copies):
            at_ns = max(now_ns, self._quiet_ns[wire.kind]) + weather.delay(self._dice)
            at_ns = wire.arrives_ns[to_router] = max(at_ns, wire.arrives_ns[to_router])
            come = [*parts[:to_router], *weather.touch(self._dice, parts[to_router:])]
            self.clock.after(at_ns - now_ns, partial(self._arrive, wire, wire.epoch, to, come))

    def _arrive(self, wire: Wire, epoch: int, to: Socket, parts: list[bytes]) -> None:
        if epoch == wire.epoch and not to.closed:
            to.inbox.append((parts, wire))
            to.notify()

    def cut(self, wire: Wire) -> None:
        """The connection is lost, and what is on its way; another one is made soon."""
        if wire.router is not None:
            wire.epoch += 1
            self._part(wire)

    def _part(self, wire: Wire) -> None:
        """The ends of a connection lose each other."""
        assert wire.router is not None
        del wire.router.wires[wire.name]
        wire.router, wire.untaken = None, 0
        wire.arrives_ns = {True: 0, False: 0}
        if wire.dealer.monitor is not None:
            wire.dealer.monitor.lost = True
        wire.dealer.notify()
        self._connect_within(wire, RECONNECT_NS)

    def quiet(self, kind: Kind, for_ns: int) -> None:
        """Nothing arrives for a while; then all of it."""
        self._quiet_ns[kind] = self.clock.now_ns + for_ns

    def forget(self, socket: Socket) -> None:
        """A socket is closed, and says nothing more; what it has said is on its way."""
        if self._bound.get(socket.endpoint) is socket:
            del self._bound[socket.endpoint]
            for wire in list(socket.wires.values()):
                self._part(wire)
        if socket.wire is not None:
            self._close(socket.wire)

    def _close(self, wire: Wire) -> None:
        """The end of a connection: the data in it may arrive all the same, or not."""
        self.wires.remove(wire)
        if wire.router is not None:
            del wire.router.wires[wire.name]
            wire.router = None
            if wire.kind == "data" and self._dice.random() < 0.5:
                wire.epoch += 1
