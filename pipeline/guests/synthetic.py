"""A synthetic guest as the engine sees it, at the source and at the destination.

Owns a descriptor of the guest's memory and the conversation with its process. A process that
was started here ends with `close`, one that lives on its own stays as it is.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from pipeline import uffd
from pipeline.guests import wire
from pipeline.guests.base import GuestBlock, GuestStatistics, Mapping
from pipeline.guests.conversation import Conversation, close_all
from pipeline.guests.process import GuestProcess
from pipeline.guests.workload import Workload
from pipeline.records.record import AnyEffect, StoppedGuest
from protocol.control import BlockInfo
from protocol.devices import Section
from protocol.errors import GuestError, NoSuchGuest
from protocol.limits import PAGE_BYTES
from protocol.session import Role

_WHOLE_MEMORY_S = 30.0
_WHOLE_MEMORY_S_A_GIB = 10.0
"""Filling takes 1.2 s a GiB, checking 0.5 s, on an idle machine."""

_STATES: dict[wire.State, str] = {
    "waiting": "waits to be filled, it cannot leave",
    "running": "runs already: nothing can arrive there",
    "paused": "is there already: nothing can arrive there",
    "gone": "was given away: it neither runs nor waits here any more, end it and start another one",
}


def _started(memory_bytes: int, workload: Workload | None, path: Path | None) -> GuestProcess:
    """A process of our own with memory, in `path` or without a name."""
    process = GuestProcess.start()
    start = wire.Start(memory_bytes, workload, None if path is None else str(path))
    try:
        process.talk.ask(start, wire.Done, _patience_s(memory_bytes))
    except BaseException:
        process.close()
        raise
    return process


def _patience_s(memory_bytes: int) -> float:
    return _WHOLE_MEMORY_S + _WHOLE_MEMORY_S_A_GIB * memory_bytes / 2**30


class _Guest:
    """What both ends of a synthetic guest have in common."""

    role: Role
    kind = "synthetic"
    name = "the synthetic guest"
    can_stop = True
    checks_itself = True

    def __init__(self, machine: GuestProcess) -> None:
        self._machine = machine
        self.process = machine.process
        self.pid = machine.process.pid
        self.blocks: list[GuestBlock] = []
        try:
            self._described, fd = machine.talk.describe()
        except BaseException:
            machine.close()
            raise
        self.blocks.append(GuestBlock(self._described.name, self._described.pages, fd))

    def _expect_state(self, *states: wire.State) -> None:
        """NoSuchGuest, and nothing left open, for a guest that is in none of them."""
        if self._described.state not in states:
            self._close()
            raise NoSuchGuest(f"the guest {self._machine.who} {_STATES[self._described.state]}")

    def run_state(self) -> str:
        """Running or paused."""
        described, fd = self._machine.talk.describe()
        close_all([fd])
        return described.state

    def tell_session(self, session: str | None) -> None:
        """Let it know which migration it is in; None: in none any more."""
        self._machine.talk.tell(wire.Migrates(self.role, session))

    def is_dead(self) -> bool:
        """Whether the machine's process has ended."""
        return self._machine.is_dead

    def pause(self) -> None:
        """Stop, until `go_on`."""
        self._machine.talk.ask(wire.Stop(), wire.Stopped)

    def go_on(self) -> None:
        """Let the guest run."""
        self._machine.talk.ask(wire.Resume(), wire.Done)

    def statistics(self) -> GuestStatistics:
        """The dirty rate since the last call, and the gap, where it has arrived."""
        told = self._machine.talk.ask(wire.Statistics(), wire.Told)
        return GuestStatistics(told.dirty_rate, told.gap_ms)

    def self_check(self, meanwhile: Callable[[], object] = lambda: None) -> str | None:
        """None when its memory is right, else the first wrong page and how it is wrong."""
        within_s = _patience_s(self._described.pages * PAGE_BYTES)
        return self._machine.talk.ask(wire.Check(), wire.Checked, within_s, meanwhile).bad

    def _close(self) -> None:
        self._machine.close()
        close_all(block.fd for block in self.blocks)
        self.blocks = []


class SlowWorkload:
    """A Throttle: the guest writes less often. It is given back by the guest itself, whenever its
    migration is over, or nobody is there any more whose it is."""

    how = "workload"

    def __init__(self, talk: Conversation) -> None:
        self._talk = talk

    def effects(self) -> tuple[AnyEffect, ...]:
        """None: the guest is as fast as ever once its client is gone."""
        return ()

    def take(self, percent: int) -> None:
        """Slow the guest down by `percent`, from now on."""
        self._talk.ask(wire.Slow(percent), wire.Done)

    def release(self) -> None:
        """Give the guest all of its pace back."""
        self.take(0)


class SyntheticGuest(_Guest):
    """A SourceGuest: the machine of `machine`, or one that is at `socket`, filled and running."""

    role = "source"
    machine = ""

    def __init__(self, machine: GuestProcess, socket: Path | None = None) -> None:
        super().__init__(machine)
        self._expect_state("running", "paused")
        self.socket = None if socket is None else str(socket.absolute())
        self._run_state: str | None = None
        self._refusal: str | None = None

    @classmethod
    def start(
        cls, memory_bytes: int, workload: Workload, path: Path | None = None
    ) -> "SyntheticGuest":
        """One that is started here: filled, and running."""
        return cls(_started(memory_bytes, workload, path))

    @classmethod
    def attach(cls, socket: Path) -> "SyntheticGuest":
        """One that lives on its own."""
        return cls(GuestProcess.attach(socket), socket)

    def why_not_movable(self) -> str | None:
        """Its devices can be saved."""
        return None

    def effects(self, run_state: str) -> tuple[AnyEffect, ...]:
        """One that runs, and lives on its own, is stopped."""
        if self.socket is None or run_state != "running":
            return ()
        return (StoppedGuest(self.process, self.socket),)

    def throttles(self) -> tuple[SlowWorkload]:
        """It writes less often."""
        return (SlowWorkload(self._machine.talk),)

    def arm(self) -> list[Mapping]:
        """The guest registers its own memory."""
        self._refusal = self._machine.talk.ask(wire.Arm(), wire.Armed).error
        return [] if self._refusal else [Mapping(0, self.pid, self._described.address)]

    def disarm(self) -> None:
        """Its process keeps the registration for the next migration."""

    def why_not_armed(self) -> str:
        """What the kernel said."""
        return self._refusal or ""

    def why_no_uffd(self) -> str | None:
        """What the kernel lacks."""
        return uffd.probe()

    def untracked_changes(self) -> list[str]:
        """Only its own threads write."""
        return []

    def stop(self) -> str:
        """The run state that it had when it was first stopped."""
        before = self._run_state
        self._run_state = before or "running"  # it may hear us, and the answer not come
        answer = self._machine.talk.ask(wire.Stop(), wire.Stopped)
        self._run_state = before or answer.run_state
        return self._run_state

    def pause(self) -> None:
        """Stop, until `go_on`."""
        super().pause()
        self._run_state = None

    def go_on(self) -> None:
        """Let the guest run."""
        super().go_on()
        self._run_state = None

    def check_stopped(self) -> None:
        """Nobody but us lets it go on."""

    def resume(self) -> None:
        """Undo `stop`."""
        if self._run_state == "running":
            self._machine.talk.ask(wire.Resume(), wire.Done)
        self._run_state = None

    def leave(self) -> None:
        """It runs elsewhere: never again here."""
        self._machine.talk.ask(wire.Leave(), wire.Done)

    def save_devices(self) -> list[Section]:
        """Clock, prng, counters, workload."""
        return self._machine.talk.ask(wire.Save(), wire.Saved).sections

    def close(self) -> None:
        """End the guest, or let go of one that lives on. Idempotent."""
        self._close()


class SyntheticArrival(_Guest):
    """An ArrivingGuest: paused, its memory all holes."""

    role = "destination"

    def __init__(self, machine: GuestProcess, blocks: Sequence[BlockInfo]) -> None:
        super().__init__(machine)
        self._expect_state("waiting")
        if blocks[0].pages != self._described.pages:
            self._close()
            raise GuestError(
                f"the guest that waits here has {self._described.pages} pages of memory,"
                f" {blocks[0].pages} come"
            )

    @classmethod
    def start(cls, blocks: Sequence[BlockInfo], path: Path | None = None) -> "SyntheticArrival":
        """One that is started here, its memory in `path` or without a name."""
        _check_blocks(blocks)
        return cls(_started(blocks[0].pages * PAGE_BYTES, None, path), blocks)

    @classmethod
    def attach(cls, socket: Path, blocks: Sequence[BlockInfo]) -> "SyntheticArrival":
        """One that waits at `socket`."""
        _check_blocks(blocks)
        return cls(GuestProcess.attach(socket), blocks)

    def load_devices(self, sections: list[Section]) -> None:
        """Take the four sections and nothing else."""
        self._machine.talk.ask(wire.Load(sections), wire.Done)

    def begin(self, session: str, *, run: bool) -> bool:
        """Let it go on, or accept it as it is."""
        self._machine.talk.ask(wire.Begin(session, run), wire.Done)
        return run

    def announce(self) -> None:
        """It has no network."""

    def close(self) -> None:
        """End the guest, or let go of one that lives on. Idempotent."""
        self._close()


def check_waits(socket: Path) -> None:
    """GuestError where no guest waits at `socket` to be filled: NoSuchGuest where it never will."""
    guest = _Guest(GuestProcess.attach(socket))
    guest._expect_state("waiting")
    guest._close()


def _check_blocks(blocks: Sequence[BlockInfo]) -> None:
    if [block.name for block in blocks] != ["ram"]:
        names = ", ".join(block.name for block in blocks)
        raise GuestError(f"a synthetic guest has one block, ram; these came: {names}")
