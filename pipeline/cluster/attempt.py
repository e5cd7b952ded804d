"""One attempt to move a guest: what is known of its two ends by now, and what each is told."""

from dataclasses import dataclass, field
from typing import Any

from pipeline.batch.loading import words_of
from pipeline.batch.moves import Move, filled
from pipeline.batch.plan import Plan
from pipeline.cluster.ends import Ended, Order
from pipeline.config.links import is_loopback
from pipeline.config.merging import merged
from pipeline.result import Result
from protocol.session import Role


@dataclass
class Attempt:
    """Of `move` to `destination`, its try number `tries`. `here` and `there` are how the ends at
    the source and at the destination ended, `is_over` once both are; `uri` where the latter
    listens; `asked`: the ends of which the
    host was asked and has not answered; `stopping`: why it is to be cancelled; `adopted`: from a
    conductor that was killed."""

    token: str
    move: Move
    destination: str
    tries: int
    began_s: float
    share: int | None = None
    uri: str | None = None
    sent: bool = False
    here: Ended | None = None
    there: Ended | None = None
    percent: float = 0.0
    wire_rate: float | None = None
    asked: set[Role] = field(default_factory=set)
    stopping: str | None = None
    adopted: bool = False
    is_over: bool = False

    @property
    def name(self) -> str:
        """Of the guest in this attempt, for both ends: who has another one is not let in."""
        return f"{self.move.name}.{self.token}"

    def host_of(self, role: Role) -> str:
        """Where an end is."""
        return self.move.source if role == "source" else self.destination

    @property
    def result(self) -> Result | None:
        """That of the source."""
        return self.here.result if self.here is not None else None

    def words(self) -> dict[str, str]:
        """What stands in braces in the plan."""
        return words_of(self.move.name, self.move.source, self.destination, self.token)

    def environment(self, outcome: str = "") -> dict[str, str]:
        """What a hook is told."""
        told = {**self.words(), "outcome": outcome}
        return {f"PAGEFERRY_{key.upper()}": value for key, value in told.items()}

    def order(self, plan: Plan, role: Role) -> Order:
        """What an end is to be."""
        config = self._config(plan, role)
        if role == "source":
            assert self.uri is not None, "the destination listens first"
            return Order(self.token, role, ("--uri", self.uri), config)
        address = plan.hosts[self.destination].address
        there = config.get("destination", {})
        move = self.move
        return Order(
            self.token,
            role,
            ("--uri", f"tcp:{address}:0"),
            config,
            hook=_said(move.hooks.before, self.words()),
            start=_said(move.start, self.words()),
            socket=there.get("socket") or there.get("qmp"),
            start_s=plan.timeouts.start,
            environment=tuple(self.environment().items()),
        )

    def hook_after(self) -> tuple[str, ...] | None:
        """The command after it all."""
        return _said(self.move.hooks.after, self.words())

    def _config(self, plan: Plan, role: Role) -> dict[str, Any]:
        """The plan's, and what makes it one end of this attempt."""
        ours: dict[str, Any] = {"name": self.name, "destination": {"name": self.name}}
        if self.share is not None:
            ours["parameters"] = {"max-bandwidth": self.share}
        here = plan.hosts[self.host_of(role)]
        there = plan.hosts[self.host_of("destination" if role == "source" else "source")]
        local = is_loopback(plan.hosts[self.destination].address)
        if here.keys is not None and there.key is not None and not local:
            ours["security"] = {"keys": str(here.keys), "peers": [there.key]}
        made: dict[str, Any] = merged(filled(self.move.settings, self.words()), ours)
        return made


def _said(command: tuple[str, ...] | None, words: dict[str, str]) -> tuple[str, ...] | None:
    return None if command is None else tuple(filled(list(command), words))
