"""Which control message is legal when: a literal table of the conversation of both ends.

Both ends walk the same table, one by what it sends, the other by what it hears. An
illegal message is an error that names state, message and who sent it, and is the
end of the session.
"""

from enum import Enum, auto
from typing import Literal

from protocol import control as c
from protocol.control import AnyMessage
from protocol.errors import LocalProtocolError, RemoteProtocolError

Role = Literal["source", "destination"]


class Stage(Enum):
    """Where the conversation stands."""

    IDLE = auto()
    GREETED = auto()
    PREPARED = auto()
    MOVING = auto()
    VERIFYING = auto()
    VERIFIED = auto()
    LOADING = auto()
    READY = auto()
    COMMITTED = auto()
    STARTED = auto()
    OVER = auto()


_G = Stage
MESSAGES: dict[Role, dict[tuple[Stage, type[AnyMessage]], Stage]] = {
    "source": {
        (_G.IDLE, c.Hello): _G.GREETED,
        (_G.PREPARED, c.Holes): _G.PREPARED,
        (_G.PREPARED, c.RoundStart): _G.MOVING,
        (_G.MOVING, c.RoundStart): _G.MOVING,
        (_G.MOVING, c.Verify): _G.VERIFYING,
        (_G.VERIFIED, c.RoundStart): _G.MOVING,
        (_G.VERIFIED, c.Devices): _G.LOADING,
        (_G.LOADING, c.Devices): _G.LOADING,
        (_G.READY, c.Commit): _G.COMMITTED,
        (_G.STARTED, c.Settled): _G.STARTED,
    },
    "destination": {
        (_G.GREETED, c.Welcome): _G.PREPARED,
        (_G.MOVING, c.Applied): _G.MOVING,
        (_G.VERIFYING, c.Applied): _G.VERIFYING,
        (_G.MOVING, c.Endpoint): _G.MOVING,
        (_G.VERIFYING, c.Endpoint): _G.VERIFYING,
        (_G.MOVING, c.Redo): _G.MOVING,
        (_G.VERIFYING, c.Redo): _G.VERIFYING,
        (_G.VERIFYING, c.Mismatch): _G.VERIFYING,
        (_G.VERIFYING, c.Verified): _G.VERIFIED,
        (_G.LOADING, c.Ready): _G.READY,
        (_G.COMMITTED, c.Started): _G.STARTED,
        (_G.COMMITTED, c.NotStarted): _G.OVER,
        (_G.COMMITTED, c.Failed): _G.OVER,
    },
}
"""For each role what it may send: (stage, message) → the stage that follows."""

_ENDINGS: dict[Role, type[AnyMessage]] = {"source": c.Cancel, "destination": c.Failed}
UNENDABLE = frozenset({_G.COMMITTED, _G.STARTED})
"""From the commit on only Started, NotStarted or a Failed that crossed it ends a session."""


class Session:
    """One end's view of the conversation; `stage` changes through `send` and `receive` alone."""

    def __init__(self, role: Role) -> None:
        self.role: Role = role
        self._peer: Role = "destination" if role == "source" else "source"
        self.stage = Stage.IDLE
        self._peer_broke_off = False

    @property
    def owes_ending(self) -> bool:
        """Whether the peer is there, does not know that it is over, and may be told."""
        return self._peer_broke_off or self.stage not in (Stage.IDLE, Stage.OVER, *UNENDABLE)

    def send(self, message: AnyMessage) -> None:
        """Note that `message` goes out; LocalProtocolError where it must not."""
        stage = self._next(self.role, message)
        if stage is None:
            raise LocalProtocolError(self._story("was about to send", message, self.role))
        self.stage = stage

    def receive(self, message: AnyMessage) -> None:
        """Note that `message` came in; RemoteProtocolError, and the end, where it must not.

        What the peer sent before it heard that the session is over is let through.
        """
        if self.stage is Stage.OVER:
            return
        stage = self._next(self._peer, message)
        if stage is None:
            story = self._story("received", message, self._peer)
            self._peer_broke_off = self.owes_ending
            self.stage = Stage.OVER
            raise RemoteProtocolError(story)
        self.stage = stage

    def _next(self, sender: Role, message: AnyMessage) -> Stage | None:
        if isinstance(message, c.Alive):
            return self.stage
        if isinstance(message, _ENDINGS[sender]) and self.stage not in UNENDABLE:
            return Stage.OVER
        return MESSAGES[sender].get((self.stage, type(message)))

    def _story(self, verb: str, message: AnyMessage, sender: Role) -> str:
        legal = sorted(m.__name__ for stage, m in MESSAGES[sender] if stage is self.stage)
        allowed = ", ".join(legal) or "nothing"
        return (
            f"the {self.role} {verb} {type(message).__name__} in stage"
            f" {self.stage.name.lower()}; the {sender} may send {allowed} there"
        )
