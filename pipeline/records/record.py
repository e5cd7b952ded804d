"""What is on record of one end of a session: its step, whose it is, and what was done to others.

As JSON, one line a state; the newest line counts. `closed`: nothing follows any more.
"""

from datetime import UTC, datetime
from typing import Annotated

import msgspec
from msgspec import Meta, Struct, field

from pipeline.records.processes import Process
from protocol.commit import STEPS, Step
from protocol.errors import MigrationError
from protocol.session import Role

VERSION = 1
Place = Annotated[str, Meta(pattern=r"^/[^\x00]*\Z")]
"""An absolute path."""


class Effect(Struct, frozen=True, tag=True, rename="kebab"):
    """Base of what a session does outside of its own processes; kept before it is done."""


class StoppedWriter(Effect, frozen=True):
    """The writer of a memory file was stopped by a signal."""

    writer: Process


class StoppedGuest(Effect, frozen=True):
    """A guest that is a process of its own was stopped, by way of its socket."""

    guest: Process
    socket: Place


class MadeFile(Effect, frozen=True):
    """A file was made for memory to land in."""

    path: Place
    device: int
    inode: int


class BoundSockets(Effect, frozen=True):
    """Files of UNIX sockets are made, where a session binds."""

    paths: tuple[Place, ...]


class SlowedThreads(Effect, frozen=True):
    """Threads of a process were put into cgroups of ours, each below its own."""

    groups: tuple[Place, ...]


class QemuEffect(Effect, frozen=True):
    """Base of what is done to a QEMU by way of its monitor."""

    qemu: Process
    qmp: Place


class ChangedQemu(QemuEffect, frozen=True):
    """Settings of its own migration were changed; these are those before."""

    capabilities: dict[str, bool]
    parameters: dict[str, int]


class StoppedQemu(QemuEffect, frozen=True):
    """A machine that ran was stopped."""


class LoadedQemu(QemuEffect, frozen=True):
    """A machine has taken a guest's device state, and waits to be started."""


AnyQemuEffect = ChangedQemu | StoppedQemu | LoadedQemu
AnyEffect = StoppedWriter | StoppedGuest | MadeFile | BoundSockets | SlowedThreads | AnyQemuEffect


class Record(Struct, frozen=True, rename="kebab", kw_only=True, forbid_unknown_fields=True):
    """One end of a session. `owner` is the command at work on it, None once that has let go of
    it; `guest` the guest's process, None for a file that nobody writes; `socket` where the guest
    answers, if it lives on."""

    version: int = VERSION
    session: str
    role: Role
    name: str
    step: Step = Step.OPEN
    closed: bool = False
    reason: str = ""
    changed: Annotated[datetime, Meta(tz=True)] = field(default_factory=lambda: datetime.now(UTC))
    owner: Process | None
    guest: Process | None = None
    socket: Place | None = None
    effects: tuple[AnyEffect, ...] = field(default=())

    @property
    def at_work(self) -> Process | None:
        """The command that is at work on it, if that lives."""
        return self.owner if self.owner is not None and self.owner.is_alive else None

    @property
    def in_hand(self) -> bool:
        """Whether a command that lives is at work on it."""
        return self.at_work is not None

    @property
    def made_files(self) -> list[MadeFile]:
        """Those among its effects."""
        return [one for one in self.effects if isinstance(one, MadeFile)]

    def at(self, step: Step, reason: str) -> "Record":
        """The record when `step` has been reached."""
        closed = not STEPS[self.role].get(step)
        return msgspec.structs.replace(self, step=step, closed=closed, reason=reason)


_DECODER = msgspec.json.Decoder(Record)


def encode_record(record: Record) -> bytes:
    """One line, which says when."""
    now = datetime.now(UTC)
    return msgspec.json.encode(msgspec.structs.replace(record, changed=now)) + b"\n"


def decode_record(lines: bytes, where: str) -> Record:
    """The newest line; MigrationError where that is none of this version.

    What stands behind the last line's end was cut off by a crash: it was not acted by.
    """
    try:
        record = _DECODER.decode(lines.rpartition(b"\n")[0].rpartition(b"\n")[2])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise MigrationError(f"{where} cannot be read: no record of this version") from None
    if record.version != VERSION or record.at(record.step, "").closed != record.closed:
        raise MigrationError(f"{where} cannot be read: no record of this version")
    return record
