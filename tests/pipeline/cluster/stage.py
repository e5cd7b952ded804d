"""A conductor whose hosts answer what a test says, and answers that they may give."""

from pathlib import Path
from queue import Queue
from typing import Any

from pipeline.batch.journal import Journal, MoveRow
from pipeline.batch.moves import Move
from pipeline.cluster.conductor import Conductor
from pipeline.cluster.ends import Ended
from pipeline.cluster.questions import Questions
from pipeline.records.record import Record, encode_record
from pipeline.result import Result
from protocol.commit import Step
from protocol.status import Status
from tests.pipeline.batch.plans import move, plan
from tests.pipeline.cluster.hosts import Clock, Hosts

SESSION = "5" * 32
ARRIVED = Ended(begun=True, result=Result(status=Status.COMPLETED, guest_alive="destination"))
FAILED = Ended(
    begun=True, result=Result(status=Status.FAILED, guest_alive="source", error_desc="no room")
)
UNKNOWN = Ended(
    begun=True,
    result=Result(
        status=Status.FAILED, guest_alive="unknown", session=SESSION, error_desc="no answer"
    ),
)
ENDED = Ended(begun=True, result=Result(status=Status.COMPLETED, self_check="clean"))
CANCELLED_ONLY = Ended(begun=True, result=Result(status=Status.CANCELLED))
MOVES = [move("one", "a", "b"), move("two", "a", "b")]


def record_there(step: Step) -> bytes:
    """The destination's record, as it is when it is closed."""
    made = Record(session=SESSION, role="destination", name="one", owner=None)
    return encode_record(made.at(step, "closed"))


class Stage:
    """A conductor, hosts that answer what a test says, and a clock."""

    def __init__(self, path: Path, moves: list[Move], **keys: Any) -> None:  # noqa: ANN401
        self.clock, self.hosts = Clock(), Hosts()
        hosts: dict[str, dict[str, Any]] = {name: {} for name in "abc"}
        self.plan = plan(hosts, limits={"cluster": 1}, **keys)
        self.journal = Journal(path / "journal")
        if self.journal.plan is None:
            rows = [MoveRow(one.name, one.source, one.memory, place=one.source) for one in moves]
            self.journal.begin("batch", b"plan", rows, self.clock())
        self.questions = Questions(self.hosts, Queue(), self.clock)  # type: ignore[arg-type]
        self.conductor = Conductor(self.plan, moves, self.journal, self.questions, self.clock, None)

    def turn(self, seconds: float = 0) -> None:
        """Let time pass, and what has come be heard."""
        self.clock.now_s += seconds
        self.questions.turn()
        self.conductor.begin_due()

    def listening(self) -> None:
        """The destination of the one that is under way listens."""
        self.turn()
        (token,) = self.conductor.attending.attempts
        told = {"token": token, "role": "destination", "event": "listening"}
        self.conductor.attending.heard({**told, "socket_address": "tcp:b:1"})

    def both_end(self, here: object, there: object = ENDED) -> None:
        """Of the one that is under way, its destination last."""
        self.listening()
        asked = {one.host: one for one in (self.hosts.take("attend"), self.hosts.take("attend"))}
        asked["a"].answer(here)
        asked["b"].answer(there)
        self.turn()

    def row(self, name: str = "one") -> MoveRow:
        """What the journal says."""
        return self.journal.move(name)
