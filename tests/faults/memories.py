"""Guests that a fault test looks into: memory files with nothing behind them but the test."""

import os
from collections.abc import Callable
from threading import Event

import numpy as np
from numpy.typing import NDArray

from pipeline.guests.base import GuestBlock, GuestStatistics, Mapping
from pipeline.guests.memory import GuestMemory, anonymous_memory
from pipeline.records.record import AnyEffect
from protocol.devices import Section
from protocol.limits import PAGE_BYTES

Words = NDArray[np.uint64]


def random_words(pages: int, seed: int = 1) -> Words:
    """Pages that do not shrink, uint64 of shape (pages, 512)."""
    return np.random.default_rng(seed).integers(
        1, 1 << 63, (pages, PAGE_BYTES // 8), dtype=np.uint64
    )


class LeavingMemory:
    """A SourceGuest of `content`, in memory that the test writes through `memory.words`."""

    kind = "synthetic"
    name = "memory"
    can_stop = True
    obstacle: str | None = None
    """Why it cannot be moved."""
    socket: str | None = None
    machine = ""

    def __init__(
        self,
        content: Words,
        on_stop: Callable[[], None] = lambda: None,
        run_state: str = "running",
    ) -> None:
        self._on_stop = on_stop
        self._run_state = run_state
        self._fd = anonymous_memory(content.nbytes)
        self.memory = GuestMemory(self._fd, len(content))
        self.memory.words[:] = content
        self.blocks = [GuestBlock("memory", len(content), self._fd)]
        self.runs = run_state == "running"
        self.process = None

    def arm(self) -> list[Mapping]:
        """Nothing: the tracker is `hash`."""
        return []

    def why_not_movable(self) -> str | None:
        """As the test wants it."""
        return self.obstacle

    def throttles(self) -> tuple[()]:
        """It has no pace of its own."""
        return ()

    def effects(self, run_state: str) -> tuple[AnyEffect, ...]:
        """It ends with the test."""
        return ()

    def disarm(self) -> None:
        """Nothing was armed."""

    def why_not_armed(self) -> str:
        """Why."""
        return "a test's memory"

    def why_no_uffd(self) -> str | None:
        """As ever."""
        return self.why_not_armed()

    def untracked_changes(self) -> list[str]:
        """Nobody."""
        return []

    def is_dead(self) -> bool:
        """Nothing runs that could end."""
        return False

    def run_state(self) -> str:
        """As it was made, until it is stopped."""
        return "paused" if self._run_state == "running" and not self.runs else self._run_state

    def pause(self) -> None:
        """Its user stops it."""
        self.runs = False

    def go_on(self) -> None:
        """Its user lets it go on."""
        self.runs = True

    def tell_session(self, session: str | None) -> None:
        """It does not matter to it."""

    def leave(self) -> None:
        """It has left."""

    def stop(self) -> str:
        """Let the test stop whoever writes."""
        self._on_stop()
        self.runs = False
        return self._run_state

    def check_stopped(self) -> None:
        """Nobody else lets it go on."""

    def resume(self) -> None:
        """It runs again if it ran."""
        self.runs = self._run_state == "running"

    def save_devices(self) -> list[Section]:
        """One small device."""
        return [Section("counter", 0, 1, b"1234")]

    def statistics(self) -> GuestStatistics:
        """Nothing to tell."""
        return GuestStatistics()

    def close(self) -> None:
        """Let the memory go."""
        del self.memory
        os.close(self._fd)


class ArrivingMemory:
    """An ArrivingGuest that notes what was done to it, and its memory when it was started."""

    checks_itself = False

    def __init__(self, pages: int, *, writable: bool = True) -> None:
        self._own = anonymous_memory(pages * PAGE_BYTES)
        flags = os.O_RDWR if writable else os.O_RDONLY
        self._fd = os.open(f"/proc/self/fd/{self._own}", flags | os.O_CLOEXEC)
        self.blocks = [GuestBlock("memory", pages, self._fd)]
        self.process = None
        self.done: list[str] = []
        self.started = Event()
        self.at_start: Words | None = None

    def words(self) -> Words:
        """A copy of its memory, uint64 of shape (pages, 512); once closed as it was then."""
        if not self.blocks:
            return self._left
        size = self.blocks[0].pages * PAGE_BYTES
        return np.frombuffer(os.pread(self._own, size, 0), np.uint64).reshape(-1, PAGE_BYTES // 8)

    def load_devices(self, sections: list[Section]) -> None:
        """Note it."""
        self.done.append("load")

    def begin(self, session: str, *, run: bool) -> bool:
        """Note it, and what memory is at this moment."""
        self.done.append("start" if run else "keep")
        self.at_start = self.words()
        self.started.set()
        return run

    def pause(self) -> None:
        """Note it."""
        self.done.append("pause")

    def go_on(self) -> None:
        """Note it."""
        self.done.append("go on")

    def announce(self) -> None:
        """Note it."""
        self.done.append("announce")

    def run_state(self) -> str:
        """What was done last."""
        return "paused" if self.done[-1] == "pause" else "running"

    def is_dead(self) -> bool:
        """It has no process."""
        return False

    def self_check(self, meanwhile: Callable[[], object] = lambda: None) -> str | None:
        """The test checks."""
        return None

    def statistics(self) -> GuestStatistics:
        """Nothing to tell."""
        return GuestStatistics()

    def close(self) -> None:
        """Let the memory go. Idempotent."""
        while self.blocks:
            self._left = self.words()
            self.blocks.pop()
            os.close(self._own)
            os.close(self._fd)
