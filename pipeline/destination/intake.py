"""The way of the frames into memory: what the decompress workers say, and what they are given.

Slots go to the reassembly and come back as grants; what has landed is read back by workers
that are idle. Owned by the receiver's thread.
"""

from collections import deque
from collections.abc import Callable

import structlog

from pipeline.destination.landing import Landing
from pipeline.destination.read_back import ReadBackList
from pipeline.destination.reassembly import GRANTS, Reassembly
from pipeline.extents import decode_extents
from protocol import control as c
from protocol.digest import table_digest
from protocol.errors import IntegrityError, RemoteProtocolError
from workers.messages import Arrived, Checked, FromWorker, Grant, Refused, TurnedAway, Up
from workers.pages import Hashes, Pages
from workers.pool import Pool


class Intake:
    """Memory that fills. `expected` is None, and nothing read back, without full verification."""

    def __init__(
        self,
        pool: Pool,
        landings: list[Landing],
        reassembly: Reassembly,
        expected: list[Hashes] | None,
    ) -> None:
        self.pool = pool
        self._landings = landings
        self.reassembly = reassembly
        self._expected = expected
        self._read_back = None if expected is None else ReadBackList(landings, expected)
        self._asked: dict[int, int] = {}
        self._granted: dict[int, set[int]] = {}
        self._lanes: list[int] = []
        self._decompress_ns = 0
        self.turned_away: deque[TurnedAway] = deque()
        """Who was not let in at the workers' ports, until somebody tells of it."""
        self.unsaid: deque[c.Redo | c.Endpoint] = deque()
        """What the source has to hear, as soon as the session lets it be said."""

    def open(self) -> list[str]:
        """The workers are up: give them slots to fill. Their endpoints, by lane."""
        self._lanes = self.pool.workers
        for worker in self._lanes:
            self._grant(worker)
        return [self.pool.endpoints[worker] for worker in self._lanes]

    def hear(self, worker: int, message: FromWorker) -> None:
        """Take what a worker says; RemoteProtocolError for a frame that no honest source sends."""
        match message:
            case Arrived():
                self._granted[worker].discard(message.slot)
                self._take(message)
                self._grant(worker)
            case Checked():
                assert self._read_back is not None
                del self._asked[worker]
                self._read_back.heard(message)
            case Refused(reason=reason, damaged=True, seq=seq):
                self.unsaid.append(c.Redo(seq=seq, reason=reason))
            case Refused(reason=reason):
                raise RemoteProtocolError(reason)
            case TurnedAway():
                self.turned_away.append(message)
            case Up(endpoint):
                self._grant(worker)
                lane = self._lanes.index(worker)
                self.unsaid.append(c.Endpoint(lane=lane, endpoint=endpoint))
            case _:
                raise TypeError(f"not from a decompress worker: {message}")

    def _take(self, message: Arrived) -> None:
        self._decompress_ns += message.busy_ns
        for block, pages in self.reassembly.take(message):
            if self._read_back is not None:
                self._read_back.wrote(block, pages)

    def _grant(self, worker: int) -> None:
        """See that a worker has slots: two new ones as soon as two are used."""
        granted = self._granted.setdefault(worker, set())
        wanted = GRANTS - len(granted)
        if wanted >= GRANTS // 2:
            slots = self.reassembly.grant(wanted)
            granted.update(slots)
            self.pool.send(worker, Grant(slots))

    def check_workers(self, now_ns: int, tick: Callable[[], None]) -> None:
        """Ask the workers; replace those that are dead or hang. The source redoes what was on
        its way to one, when it hears where the other one listens.

        `tick` is called while one is started.
        """
        self.pool.ask(now_ns)
        for found in self.pool.losses(now_ns):
            loss = found.while_at(self._task_of(found.worker))
            structlog.get_logger().warning(f"{loss.reason}; another one takes its place")
            lane = self._lanes.index(loss.worker)
            self.pool.replace(loss, tick)
            self._lanes[lane] = self.pool.workers[-1]
            self.reassembly.free(self._granted.pop(loss.worker, ()))
            job = self._asked.pop(loss.worker, None)
            if job is not None and self._read_back is not None:
                self._read_back.give_back(job)

    def _task_of(self, worker: int) -> str:
        """What a worker is doing, in words, as far as this end knows: it takes frames unasked."""
        task = "reading back" if worker in self._asked else "taking frames"
        memory = self.reassembly
        return f"{task}, with memory at frame {memory.applied} of round {memory.round_no}"

    def ask_idle(self) -> None:
        """Give each worker that has none a piece of memory to read back."""
        if self._read_back is None:
            return
        for worker in self.pool.endpoints:
            if worker not in self._asked and (job := self._read_back.maybe_next()):
                self._asked[worker] = job.job
                self.pool.send(worker, job)

    def clear(self, holes: c.Holes) -> None:
        """Make holes where the source has some; RemoteProtocolError outside of memory."""
        if holes.block >= len(self._landings):
            raise RemoteProtocolError(f"holes in unknown block {holes.block}")
        landing = self._landings[holes.block]
        landing.clear(decode_extents(holes.extents, landing.pages))

    def start_round(self, start: c.RoundStart) -> None:
        """A round begins; RemoteProtocolError where the one before it is not all applied."""
        if self.reassembly.applied < start.first_seq - 1:
            raise RemoteProtocolError(
                f"round {start.round_no} begins at seq {start.first_seq}, while frames are"
                f" applied up to {self.reassembly.applied}: the fence was skipped"
            )

    def applied(self) -> c.Applied:
        """How far memory is."""
        return c.Applied(
            seq=self.reassembly.applied,
            decompress_ns=self._decompress_ns,
            write_ns=self.reassembly.write_ns,
            uncompared=self._read_back.uncompared if self._read_back else 0,
        )

    def compare(self, digests: list[int]) -> None:
        """Have all compared that was not; IntegrityError where the ends disagree on what was sent.

        `digests` are those of the source's hash tables. The outcome is in `mismatches`, once
        `all_compared`.
        """
        if self._expected is None or self._read_back is None:
            return
        if [table_digest(table) for table in self._expected] != digests:
            raise IntegrityError("the ends do not agree on what was sent")
        self._read_back.plan()

    @property
    def all_compared(self) -> bool:
        """Whether no comparison waits or runs."""
        return self._read_back is None or self._read_back.is_done

    def mismatches(self) -> list[tuple[int, Pages]]:
        """The pages that differ from what was sent, by block."""
        return [] if self._read_back is None else self._read_back.mismatches()
