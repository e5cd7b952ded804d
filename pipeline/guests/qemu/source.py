"""A QEMU that is to leave: an unmodified machine, driven by way of its monitor."""

from contextlib import suppress
from pathlib import Path

from pipeline.guests.base import Mapping, Throttle
from pipeline.guests.qemu import state
from pipeline.guests.qemu.answers import Processor
from pipeline.guests.qemu.attached import AttachedQemu, let_run
from pipeline.guests.qemu.machine import SAVED, TOUCHED, source_obstacles, untracked_changes
from pipeline.guests.qemu.processor_time import ProcessorTime, maybe_parent
from pipeline.guests.qemu.ram import backends, whole_mapping
from pipeline.guests.qemu.settings import Settings
from pipeline.guests.qemu.turns import Turns
from pipeline.injection.attach import Attached, attach, why_not
from pipeline.records.record import AnyEffect, StoppedQemu
from protocol.devices import Section
from protocol.errors import GuestError
from protocol.limits import PAGE_BYTES

SANDBOXED = True
"""QEMU's own filter (-sandbox on) lists what it forbids; userfaultfd and close are not there."""


class QemuGuest(AttachedQemu):
    """A SourceGuest: the machine whose monitor listens at `qmp`.

    NoSuchGuest, with all that is in the way, for one that cannot leave. Where it was given away,
    it stays as it is, or `quits`.
    """

    can_stop = True
    socket: str | None = None

    def __init__(self, qmp: Path, *, quits: bool = False) -> None:
        self._quits = quits
        self._attached: Attached | None = None
        self._refusal = ""
        self._run_state: str | None = None
        self._settings: Settings | None = None
        self._limit: ProcessorTime | None = None
        self._turns: Turns | None = None
        super().__init__(qmp, source_obstacles, writable=False)

    def throttles(self) -> list[Throttle]:
        """By its processors' time, where that can be limited here; else by turns."""
        pid, self._turns = self.process.pid, Turns(self._monitor)
        threads = self._processors()
        found = {thread: maybe_parent(pid, thread) for thread in threads}
        parents = {thread: parent for thread, parent in found.items() if parent is not None}
        if len(parents) < len(found) or not parents:
            return [self._turns]
        self._limit = ProcessorTime(pid, parents)
        return [self._limit, self._turns]

    def _processors(self) -> list[int]:
        """The threads that they are."""
        found = self._monitor.query(list[Processor], "query-cpus-fast")
        return [processor.thread_id for processor in found]

    def _take_no_turns(self) -> None:
        if self._turns is not None:
            self._turns.hold()

    def run_state(self) -> str:
        """As QEMU has it; one that takes turns runs."""
        found = super().run_state()
        in_turn = found == "paused" and self._turns is not None and self._turns.stands
        return "running" if in_turn else found

    def why_not_movable(self) -> str | None:
        """What blocks its migration now."""
        found = source_obstacles(self._monitor)
        there = {one.name: one.size_bytes // PAGE_BYTES for one in backends(self._monitor)}
        if there != {block.name: block.pages for block in self.blocks}:
            found.append("it has other memory than before: start pageferry again")
        return "; ".join(found) or None

    def effects(self, run_state: str) -> tuple[AnyEffect, ...]:
        """Its settings are changed while its state is saved; one that runs is stopped: until then
        it does run."""
        if self._turns is not None:
            self._turns.release()
        self._settings = Settings(self._monitor)
        before = self._settings.before
        if run_state not in ("running", "suspended"):
            return (before,)
        return before, StoppedQemu(before.qemu, before.qmp)

    def tell_session(self, session: str | None) -> None:
        """It does not ask."""

    def arm(self) -> list[Mapping]:
        """Have its memory write-protected from outside; empty where that cannot be had."""
        try:
            return self._arm()
        except (GuestError, OSError) as error:
            self._refusal = str(error)
            return []

    def _arm(self) -> list[Mapping]:
        pid, mappings = self.process.pid, []
        for number, block in enumerate(self.blocks):
            mapping = whole_mapping(pid, block)
            if mapping is None:
                raise GuestError(f"memory {block.name} is not mapped in one piece")
            mappings.append(Mapping(number, pid, mapping.address))
        ranges = [(m.address, self.blocks[m.block].pages * PAGE_BYTES) for m in mappings]
        self._attached = attach(pid, ranges, sandboxed=SANDBOXED)
        return mappings

    def disarm(self) -> None:
        """Take the protection off. Idempotent."""
        if self._attached is not None:
            self._attached.close()

    def why_not_armed(self) -> str:
        """What stood in the way."""
        return self._refusal

    def why_no_uffd(self) -> str | None:
        """What would stand in the way of a tracer."""
        return why_not(self.process.pid, sandboxed=SANDBOXED)

    def untracked_changes(self) -> list[str]:
        """Direct I/O, and a balloon."""
        return list(untracked_changes(self._monitor))

    def stop(self) -> str:
        """Stop its processors; the run state that it had when it was first stopped."""
        before = self.run_state()
        if before == "suspended":
            self._monitor.ask("system_wakeup")
            before = "running"
        self._run_state = self._run_state or before
        self._take_no_turns()
        if self._limit is not None:  # a processor without time left would stop 0.1 s later
            with suppress(GuestError):
                self._limit.release()
        self._monitor.ask("stop")
        return self._run_state

    def check_stopped(self) -> None:
        """GuestError where somebody else has let it go on."""
        if self.run_state() != SAVED or TOUCHED & self._monitor.events():
            raise GuestError("somebody has let the machine go on while it was moved")

    def resume(self) -> None:
        """Undo `stop`, and what could not be undone of settings."""
        try:
            if self._settings is not None:
                self._settings.put_back()
        finally:
            if self._run_state == "running":
                let_run(self._monitor)
            self._run_state = None

    def pause(self) -> None:
        """Stop, until `go_on`."""
        self._take_no_turns()
        super().pause()
        self._run_state = None

    def go_on(self) -> None:
        """Let the machine run."""
        super().go_on()
        self._run_state = None

    def leave(self) -> None:
        """It runs elsewhere: it stays as it is, or ends."""
        if self._quits:
            try:
                self._monitor.ask("quit")
            except GuestError:
                if self.process.is_alive:  # else it was gone before it has answered
                    raise

    def save_devices(self) -> list[Section]:
        """Its device state, as it saves it by itself."""
        assert self._settings is not None, "on record before it is stopped"
        self._settings.change()
        saved = state.save(self._monitor)
        self._monitor.events()
        self._settings.put_back()  # else `resume` does
        return [Section(state.SECTION, 0, state.VERSION, saved)]

    def close(self) -> None:
        """Let go of it, as it is. Idempotent."""
        self.disarm()
        self._let_go()
