"""`pageferry batch run`: a plan, from its start or from where its last conductor was killed."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from queue import Queue
from tempfile import TemporaryDirectory
from time import monotonic, time
from typing import Any

import structlog

from pipeline.batch.forecast import forecast, why_stuck
from pipeline.batch.journal import Journal, MoveRow, Request, conducted, read_journal
from pipeline.batch.loading import PlanError, load_plan, located
from pipeline.batch.moves import Move
from pipeline.batch.plan import Plan
from pipeline.batch.summary import ENDED, Summary, summary
from pipeline.cluster.conductor import Conductor
from pipeline.cluster.dask import Dask
from pipeline.cluster.questions import Happening, Questions
from pipeline.signals import cancelled_by_signals
from protocol.errors import ConfigError

LOOK_S = 5.0
"""How often it is looked which hosts are there."""
SAVE_S = 1.0
"""How often it is kept how far the running ones are, at most."""
LEAVE = 2
"""Signals: the first one cancels, the second one does not wait for that."""
SHARE = 10
"""All of a journal is read each time: with many thousands of guests more seldom."""
Observer = Callable[[Conductor, Summary], None]


def journal_of(plan: Path) -> Path:
    """Where the journal of a plan lies."""
    return plan.with_name(plan.name + ".journal")


def run_batch(path: Path, *, resume: bool, observers: Sequence[Observer]) -> tuple[Summary, bool]:
    """Conduct the plan in the file `path` until all has ended; what came of it, and whether it was
    cancelled. ConfigError for mistakes, before anything is begun."""
    plan, moves = load_plan(path)
    text = path.read_bytes()
    with located(path), conducted(journal_of(path)) as journal:
        _check(journal, path, text, plan, moves, resume=resume)
        if _is_over(journal):
            structlog.get_logger().warning(
                f"this batch is over; without {journal.path} a new one begins"
            )
            return summary_of(plan, journal), False
        with TemporaryDirectory(prefix="pageferry-batch-") as folder:
            happenings: Queue[Happening] = Queue()
            batch = _Batch(plan, moves, journal, Path(folder), happenings, observers)
            try:
                return batch.run(text)
            finally:
                batch.close()


def summary_of(plan: Plan, journal: Journal) -> Summary:
    """Where the batch of `plan` stands, as its journal has it."""
    return summary(plan.name, journal.times, journal.moves(), journal.attempts(), plan.hosts)


def _check(
    journal: Journal, path: Path, text: bytes, plan: Plan, moves: list[Move], *, resume: bool
) -> None:
    """ConfigError where what is in the journal is not what is asked for, or guests cannot move."""
    there = journal.plan
    if there is not None and not resume:
        raise ConfigError(
            f"{journal.path} is there: --resume goes on with it; remove it to begin a new batch"
        )
    if there is not None and there != text:
        raise ConfigError(f"{journal.path} is of another plan than {path} is now")
    if there is None and (stuck := forecast(plan, moves).stuck):
        raise PlanError(stuck[0].where, why_stuck(stuck[0]))


def _row(move: Move) -> MoveRow:
    return MoveRow(move.name, move.source, move.memory, place=move.source)


def _is_over(journal: Journal) -> bool:
    """Whether nothing is left to be done, and nothing left to be found out."""
    if journal.plan is None or journal.times[1] is None:
        return False
    over = all(one.state in ("arrived", "failed", "lost", "cancelled") for one in journal.moves())
    return over and all(one.closed for one in journal.attempts())


class _Batch:
    """One that is conducted."""

    def __init__(
        self,
        plan: Plan,
        moves: list[Move],
        journal: Journal,
        folder: Path,
        happenings: "Queue[Happening]",
        observers: Sequence[Observer],
    ) -> None:
        self._plan = plan
        self._journal = journal
        self._observers = observers
        self._signals = 0
        self._happenings = happenings
        self._moves = moves
        self._next_s = self._looked_s = 0.0
        self._dask = Dask(plan, folder, self._heard)
        self._questions = Questions(self._dask, happenings, monotonic)
        self._conductor = Conductor(plan, moves, journal, self._questions, time, self._dask.cores)

    def _count_signal(self) -> None:
        self._signals += 1

    def _heard(self, said: dict[str, Any]) -> None:
        """In a thread of Dask's."""
        self._happenings.put(lambda: self._conductor.attending.heard(said))

    def run(self, text: bytes) -> tuple[Summary, bool]:
        """Until it is over; `text` is the plan's."""
        self._wait_for_hosts()
        if self._journal.plan is None:
            self._journal.begin(self._plan.name, text, list(map(_row, self._moves)), time())
        self._journal.end(None)
        self._go_on()
        with cancelled_by_signals(self._count_signal):
            self._obey()
            self._conductor.begin_due()
            while not self._conductor.is_over and self._signals < LEAVE:
                self._questions.turn()
                self._look_after()
                self._obey()
                self._conductor.begin_due()
                self._show()
        if self._conductor.is_over:
            self._leave_rest()
            self._journal.end(time())
        else:
            structlog.get_logger().warning("left before all had ended: --resume goes on with it")
        return self._told(), self._conductor.cancelled

    def _wait_for_hosts(self) -> None:
        """PlanError where one does not come; a batch that goes on does without."""
        structlog.get_logger().info("waiting for the hosts")
        try:
            self._dask.wait_until_up()
        except PlanError as error:
            if self._journal.plan is None:
                raise
            structlog.get_logger().warning(str(error))

    def _go_on(self) -> None:
        """Take over what a conductor before this one has begun, and what it was told."""
        rows = {row.token: row for row in self._journal.attempts()}
        for move in self._journal.moves():
            row = rows.get(move.token or "")
            if move.state == "arrived" and (row is None or row.closed):
                self._conductor.scheduler.arrived_before(
                    self._conductor.moves[move.name], move.place
                )
            elif row is not None and move.state == "unknown":
                self._conductor.resolve_again(row, move)
            elif row is not None and row.ended is None:
                self._conductor.adopt(row, move.tries)
            elif row is not None and not row.closed:
                self._conductor.put_away(row, move.tries)
            elif row is not None and move.state == "waiting":
                self._conductor.later(move, row.destination)
            elif move.state in ENDED and move.state != "stuck":
                self._conductor.over_before(move)
        newest = {move.token for move in self._journal.moves()}
        for row in rows.values():
            if not row.closed and row.token not in newest:
                self._conductor.tidy(row)
        for request in self._journal.heard():
            self._do(request)

    def _look_after(self) -> None:
        if monotonic() - self._looked_s > LOOK_S:
            self._looked_s = monotonic()
            for host in self._dask.look_after():
                self._conductor.note("host", detail=f"{host} is started again")
            self._conductor.attending.look_at_hosts(set(self._dask.up()))

    def _obey(self) -> None:
        if self._signals and not self._conductor.cancelled:
            self._journal.ask("cancel")
        for request in self._journal.asked():
            self._journal.is_done(request)
            self._do(request)

    def _do(self, request: Request) -> None:
        """At once, and again by whoever takes over."""
        try:
            self._did(request)
        except ValueError as error:
            structlog.get_logger().warning(f"{request.what} {request.argument}: {error}")

    def _did(self, request: Request) -> None:
        conductor = self._conductor
        match request.what:
            case "pause" | "resume":
                conductor.paused = request.what == "pause"
            case "cancel" if request.argument:
                conductor.cancel(request.argument)
            case "cancel":
                conductor.cancel_all()
            case "limit":
                key, _, value = request.argument.partition("=")
                conductor.limit(key, int(value))

    def _show(self) -> None:
        if time() < self._next_s:
            return
        began_s = time()
        with self._journal.together():
            for attempt in self._conductor.attending.attempts.values():
                self._journal.change_attempt(attempt.token, percent=attempt.percent)
        self._told()
        self._next_s = time() + max(SAVE_S, SHARE * (time() - began_s))

    def _told(self) -> Summary:
        """To all who look on."""
        found = summary_of(self._plan, self._journal)
        for observer in self._observers:
            with suppress(OSError):  # a terminal that is closed: nobody looks on
                observer(self._conductor, found)
        return found

    def _leave_rest(self) -> None:
        """Those that never begin, and why."""
        why = "no host has room for it"
        if self._conductor.has_failed_too_often:
            why = "too many have failed before"
        for move in self._conductor.scheduler.waiting:
            self._journal.change(move.name, state="stuck", reason=why)

    def close(self) -> None:
        """End what was started."""
        self._dask.close()


def ask(path: Path, what: str, argument: str = "") -> None:
    """From another terminal, of the batch of a plan. ConfigError where there is none."""
    with read_journal(journal_of(path)) as journal:
        if journal.times[1] is not None:
            raise ConfigError(f"{path}: no batch is under way")
        if what == "cancel" and argument and argument not in {one.name for one in journal.moves()}:
            raise ConfigError(f"{path}: no guest {argument!r} is in it")
        journal.ask(what, argument)


def status(path: Path) -> Summary:
    """Where the batch of a plan stands. ConfigError where there is none."""
    plan, _ = load_plan(path)
    with read_journal(journal_of(path)) as journal:
        return summary_of(plan, journal)
