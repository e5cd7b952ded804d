"""The person who looks after both machines when the commands are over: cleanup, then resolve."""

from pipeline.leftovers.cleanup import settle
from pipeline.leftovers.resolve import resolve
from pipeline.leftovers.settling import Unanswered, close_destination
from pipeline.records.store import SessionRecord
from protocol.commit import Step
from protocol.errors import MigrationError
from protocol.session import Role
from tests.simulation.clock import SECOND
from tests.simulation.world import World

PATIENCE = 30
"""How often something is tried again that a guest which hangs has not answered."""


class Operator:
    """Works in a process of its own. `resolved` is what `resolve` has said."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.resolved: Step | None = None

    def close_early(self) -> None:
        """Close the destination's record while the commands are at work: whoever wins, wins."""
        record = self._world.disk.find("destination")
        if record is not None:
            try:
                close_destination(record)
            except MigrationError as error:
                self._world.story.tell("refused", "the operator is told: {}", error)

    def put_right(self) -> None:
        """What is to be done when both commands are over."""
        for _ in range(PATIENCE):
            if self._has_put_right():
                return
            self._world.clock.sleep(SECOND)
        self._world.truth.check(False, "the operator does not get it right")

    def _has_put_right(self) -> bool:
        try:
            self._clean("source")
            self._clean("destination")
            self._resolve()
        except MigrationError as error:
            self._world.story.tell("refused", "the operator is told: {}", error)
            return False
        return True

    def _clean(self, role: Role) -> None:
        record = self._world.disk.find(role)
        if record is not None and not record.record.in_hand:
            try:
                words = settle(record)
            except Unanswered as error:
                words = str(error)
            self._world.story.tell("cleanup", "cleanup at the {}: {}", role, words)

    def _resolve(self) -> None:
        source = self._world.disk.find("source")
        if source is None or source.step is not Step.INTENT:
            return
        peer = self._world.disk.find("destination")
        self._world.truth.check(peer is not None, "the source asks, the destination knows nothing")
        if peer is not None:
            self._settle(source, peer)

    def _settle(self, source: SessionRecord, peer: SessionRecord) -> None:
        closed = close_destination(peer)
        words = resolve(source, closed)
        self.resolved = closed.step
        self._world.story.tell("resolve", "resolve: {}: {}", closed.step, words)
