"""Two ends of a control connection, and what is asked of them."""

from dataclasses import dataclass

from pipeline.control_link import ControlLink
from protocol import control as c
from tests.pipeline.clocks import Clock
from tests.protocol.samples import BY_NAME

PATIENCE_MS = 20_000
HELLO, WELCOME = BY_NAME["Hello"], BY_NAME["Welcome"]
ROUND = BY_NAME["RoundStart"]


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
