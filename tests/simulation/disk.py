"""Records that outlive their process; between a change and what it allows anything may happen."""

from msgspec.structs import replace

from pipeline.records.record import Record, decode_record, encode_record
from pipeline.records.store import SessionRecord
from protocol.commit import STEPS, Step
from protocol.session import Role
from tests.simulation.clock import MS
from tests.simulation.machine import Processes
from tests.simulation.story import Story

FLUSH_NS = 2 * MS


class Disk:
    """The records of both machines, by role; `steps` is what each has ever said."""

    def __init__(self, processes: Processes, story: Story) -> None:
        self.processes = processes
        self.story = story
        self.records: dict[Role, Record] = {}
        self.steps: dict[Role, list[Step]] = {"source": [], "destination": []}

    def create(self, record: Record) -> SessionRecord:
        """As pipeline.records.store's create_record."""
        self.records[record.role] = record
        created = VirtualRecord(self, record)
        created.keep(record)
        return created

    def find(self, role: Role) -> SessionRecord | None:
        """The record of one end, if there is one."""
        record = self.records.get(role)
        return None if record is None else VirtualRecord(self, record)

    def last_step(self, role: Role) -> Step | None:
        """What the record of one end says, or has said before it was removed."""
        return self.steps[role][-1] if self.steps[role] else None


class VirtualRecord(SessionRecord):
    """A record on a virtual disk; a process that is dead changes nothing on it."""

    def __init__(self, disk: Disk, record: Record) -> None:
        self._disk = disk
        self.record = record

    def change(self, old: Step, new: Step, reason: str = "") -> bool:
        """As on a real disk: by compare-and-swap."""
        self._flush()
        self._look()
        if self.record.step is not old or new not in STEPS[self.record.role][old]:
            return False
        self.keep(self.record.at(new, reason))
        return True

    def _amend(self, **changes: object) -> None:
        self._look()
        self.keep(replace(self.record, **changes))

    def _look(self) -> None:
        self.record = self._disk.records.get(self.record.role, self.record)

    def keep(self, record: Record) -> None:
        """Write it, if the process lives and nobody has removed it."""
        if self._is_dead:
            return
        role = record.role
        self.record = record = decode_record(encode_record(record), "a virtual disk")
        if role in self._disk.records:
            self._disk.records[role] = record
        self._disk.steps[role].append(record.step)
        self._disk.story.tell(f"{role}-{record.step}", "the {}'s record says {}", role, record.step)
        self._flush()

    def _flush(self) -> None:
        processes = self._disk.processes
        processes.clock.sleep(int(processes.dice.random() * FLUSH_NS))

    @property
    def _is_dead(self) -> bool:
        owner = self._disk.processes.clock.current
        return owner is not None and owner.killed

    def remove(self) -> None:
        """Nobody can ask for it any more."""
        if not self._is_dead and self.record.role in self._disk.records:
            del self._disk.records[self.record.role]
            self._disk.story.tell("removed", "the {}'s record is removed", self.record.role)

    def close(self) -> None:
        """Let go of it."""
