"""Memory that is a file: read while its writer goes on, or filled, with no guest in it.

Knows nothing of what the memory means. Invariant: a file that was not made here is never
removed, one that is mapped never truncated.
"""

import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path

from pipeline.file_users import Access, users_of
from pipeline.guests.base import GuestBlock, GuestStatistics, Mapping
from pipeline.guests.memory import anonymous_memory, leads_to, lock, named_memory
from pipeline.guests.writer import Writer
from pipeline.records.processes import Process
from pipeline.records.record import AnyEffect, StoppedWriter
from protocol.control import BlockInfo
from protocol.devices import Section
from protocol.errors import ConfigError, GuestError, MigrationError
from protocol.limits import PAGE_BYTES

BLOCK_NAME = "memory"


class FileGuest:
    """A SourceGuest: the file at `path` and the process that writes it, None where none does."""

    kind = "file"
    socket: str | None = None
    machine = ""

    def __init__(self, path: Path, pid: int | None) -> None:
        self._writer: Writer | None = None
        self.name = str(path)
        self.can_stop = pid is not None
        self.process: Process | None = None
        self.blocks = [_open_block(path)]
        try:
            lock(self.blocks[0].fd, path)
            if pid is not None:
                self._writer = Writer(pid)
                self.process = self._writer.process
                _refuse_other_writers(path, self.blocks[0].fd, pid)
        except MigrationError:
            self.close()
            raise

    def arm(self) -> list[Mapping]:
        """Nothing: see `why_not_armed`."""
        return []

    def disarm(self) -> None:
        """Nothing was armed."""

    def why_not_armed(self) -> str:
        """Why the kernel does not track it."""
        return "a file's writer does not register itself"

    def why_no_uffd(self) -> str | None:
        """Why `arm` would answer with nothing; None where it would not."""
        return self.why_not_armed()

    def untracked_changes(self) -> list[str]:
        """Nobody knows who writes; it is never armed."""
        return []

    def is_dead(self) -> bool:
        """Whether the writer has ended; a file without one never is."""
        return self._writer is not None and self._writer.has_ended()

    def run_state(self) -> str:
        """Whether the writer runs; a file without one is "paused"."""
        return "running" if self._writer is not None and self._writer.runs() else "paused"

    def effects(self, run_state: str) -> tuple[AnyEffect, ...]:
        """A writer that runs is stopped."""
        if self.process is None or run_state != "running":
            return ()
        return (StoppedWriter(self.process),)

    def why_not_movable(self) -> str | None:
        """Nothing but its memory moves."""
        return None

    def tell_session(self, session: str | None) -> None:
        """Nobody asks the writer."""

    def throttles(self) -> tuple[()]:
        """How its writer gets its time nobody knows."""
        return ()

    def leave(self) -> None:
        """The writer stays stopped."""

    def stop(self) -> str:
        """Stop the writer; a file without one is "paused", as nothing runs."""
        return "paused" if self._writer is None else self._writer.stop()

    def check_stopped(self) -> None:
        """GuestError where somebody else has let the writer go on, or the file has another size."""
        if self._writer is not None:
            self._writer.check_stopped()
        _check_size(self.name, self.blocks[0])

    def resume(self) -> None:
        """Undo `stop`: a writer that was stopped before stays so."""
        if self._writer is not None:
            self._writer.resume()

    def pause(self) -> None:
        """GuestError: who owns the writer stops it."""
        raise GuestError("the writer of a file is its owner's, to stop and to let go on")

    go_on = pause

    def save_devices(self) -> list[Section]:
        """A file has none."""
        return []

    def statistics(self) -> GuestStatistics:
        """A file tells nothing."""
        return GuestStatistics()

    def close(self) -> None:
        """Let go of file and writer, as they are. Idempotent."""
        _close(self.blocks)
        if self._writer is not None:
            self._writer.close()


class FileArrival:
    """An ArrivingGuest: memory lands in the file `path`, or in a memory file without a name.

    What the file held before is the engine's to clear.
    """

    process = None
    checks_itself = False

    def __init__(self, path: Path | None, blocks: Sequence[BlockInfo]) -> None:
        if len(blocks) != 1:
            raise GuestError(f"a file takes one block of memory, {len(blocks)} came")
        self._path = path
        size_bytes = blocks[0].pages * PAGE_BYTES
        if path is None:
            fd = anonymous_memory(size_bytes)
        else:
            fd = named_memory(path, size_bytes, cleared=False)
        self.blocks = [GuestBlock(blocks[0].name, blocks[0].pages, fd)]

    def load_devices(self, sections: list[Section]) -> None:
        """A file has none; GuestError where some came, or the memory that is here by now is not in
        the file at its path any more."""
        if sections:
            raise GuestError(f"a file takes no device state, {sections[0].name} came")
        if self._path is not None:
            _check_size(str(self._path), self.blocks[0])
            if not leads_to(self._path, self.blocks[0].fd):
                raise GuestError(f"{self._path} is not the file any more that the memory came to")

    def begin(self, session: str, *, run: bool) -> bool:
        """Nothing runs in a file."""
        return False

    def announce(self) -> None:
        """Nothing runs that could be."""

    def run_state(self) -> str:
        """Paused: nothing runs in a file."""
        return "paused"

    def pause(self) -> None:
        """GuestError: nothing runs here."""
        raise GuestError("nothing runs in a file")

    go_on = pause

    def is_dead(self) -> bool:
        """Nothing runs that could have ended."""
        return False

    def self_check(self, meanwhile: Callable[[], object] = lambda: None) -> str | None:
        """Nothing that could be checked."""
        return None

    def statistics(self) -> GuestStatistics:
        """A file tells nothing."""
        return GuestStatistics()

    def close(self) -> None:
        """Let go of the file. Idempotent."""
        _close(self.blocks)


def _open_block(path: Path) -> GuestBlock:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    status = os.fstat(fd)
    pages, odd = divmod(status.st_size, PAGE_BYTES)
    if stat.S_ISREG(status.st_mode) and pages and not odd:
        return GuestBlock(BLOCK_NAME, pages, fd)
    os.close(fd)
    if not stat.S_ISREG(status.st_mode):
        raise ConfigError(f"{path} is not a file that holds memory")
    raise ConfigError(
        f"{path} has {status.st_size} bytes; memory is a multiple of {PAGE_BYTES}, and not empty"
    )


def _check_size(name: str, block: GuestBlock) -> None:
    size_bytes = os.fstat(block.fd).st_size
    if size_bytes != block.pages * PAGE_BYTES:
        raise GuestError(f"{name} has {size_bytes} bytes now, and had {block.pages * PAGE_BYTES}")


def _refuse_other_writers(path: Path, fd: int, pid: int) -> None:
    """GuestError where a process that nobody will stop has the memory mapped to write to it."""
    others = [user.pid for user in users_of(fd, {pid}) if user.mapped is Access.WRITE]
    if others:
        raise GuestError(
            f"process {others[0]} has {path} mapped for writing, too: only {pid} would be stopped"
        )


def _close(blocks: list[GuestBlock]) -> None:
    while blocks:
        os.close(blocks.pop().fd)
