"""Two guests, one to leave and one to be filled: processes that write numbers into pages.

Each page holds one number, the newest that was written into it; no number is written twice.
"""

import os
from collections.abc import Callable
from itertools import count

import numpy as np

from pipeline.guests import wire
from protocol.devices import Section
from protocol.errors import GuestError
from protocol.limits import PAGE_BYTES
from tests.simulation.clock import MS, Process
from tests.simulation.machine import Processes
from tests.simulation.story import Story
from workers.memory import shared_memory
from workers.pages import Pages

ANSWER_NS = 5_000 * MS
QUIET_PAUSE_NS = 5_000 * MS


class Memory:
    """`pages` pages in a memory file; page 0 where nothing was written is a hole."""

    def __init__(self, pages: int) -> None:
        self.pages = pages
        self.fd = shared_memory("simulated", pages * PAGE_BYTES)
        self.numbers = [0] * pages

    def write(self, page: int, number: int) -> None:
        """What a guest does."""
        self.numbers[page] = number
        os.pwrite(self.fd, number.to_bytes(8, "little"), page * PAGE_BYTES)

    def read(self) -> list[int]:
        """The numbers that are in the file now."""
        content = os.pread(self.fd, self.pages * PAGE_BYTES, 0)
        return np.frombuffer(content, np.uint64)[:: PAGE_BYTES // 8].tolist()

    def close(self) -> None:
        """Give it back."""
        os.close(self.fd)


class Guest:
    """One guest: its process, its memory, and whether it runs.

    `on_run` is called when it begins to run. `marks` are the pages written since the last scan.
    """

    def __init__(
        self,
        processes: Processes,
        story: Story,
        name: str,
        pages: int,
        on_run: Callable[["Guest"], None],
    ) -> None:
        self.name = name
        self.memory = Memory(pages)
        self.marks: set[int] = set()
        self.running = self.gone = self.arrived = False
        self.session = ""
        self.loaded: list[Section] | None = None
        self.pause_ns = 10 * MS
        self._dice = processes.dice
        self._clock = processes.clock
        self._story = story
        self._on_run = on_run
        self._numbers = count(1)
        self._questions: list[tuple[wire.Request, list[wire.Answer | None], Process]] = []
        self.process = processes.start(f"{name} guest", self._run)

    def fill(self, pages: int) -> None:
        """It runs, and some of its pages exist."""
        for page in range(pages):
            self.memory.write(page, next(self._numbers))
        self.loaded = []
        self._let_run()

    def grow_quiet(self) -> None:
        """Write little from now on."""
        self.pause_ns = QUIET_PAUSE_NS

    def _run(self) -> None:
        while True:
            while self._questions:
                request, answer, who = self._questions.pop(0)
                answer[0] = self._answer(request)
                who.wake()
            if self.running:
                self._write()
            self.process.park(
                int(self._dice.random() * 2 * self.pause_ns) if self.running else None
            )

    def _write(self) -> None:
        page, number = int(self._dice.random() * self.memory.pages), next(self._numbers)
        self.memory.write(page, number)
        self.marks.add(page)
        self._story.tell("write", "the {} guest writes {} into page {}", self.name, number, page)

    def ask(self, request: wire.Request, patience_ns: int = ANSWER_NS) -> wire.Answer:
        """What a Conversation does: the answer; GuestError where none comes."""
        clock = self._clock
        who = clock.current
        assert who is not None
        answer: list[wire.Answer | None] = [None]
        until_ns = clock.now_ns + patience_ns
        if not self.process.ended:
            self._questions.append((request, answer, who))
            self.process.wake()
        while (found := answer[0]) is None:
            if self.process.ended:
                raise GuestError(f"the guest process {self.process.pid} died")
            if clock.now_ns >= until_ns:
                raise GuestError(f"the guest process {self.process.pid} did not answer")
            who.park(min(20 * MS, until_ns - clock.now_ns))
        if isinstance(found, wire.Refused):
            raise GuestError(found.reason)
        return found

    def _answer(self, request: wire.Request) -> wire.Answer:
        match request:
            case wire.Describe():
                return wire.Described("ram", self.memory.pages, 0, self.state, self.session)
            case wire.Stop():
                before, self.running = self.running, False
                self._story.tell("stop", "the {} guest stops", self.name)
                return wire.Stopped("running" if before else "paused")
            case wire.Resume() if self.gone or self.loaded is None:
                return wire.Refused(f"the {self.name} guest is {self.state}")
            case wire.Resume():
                self._let_run()
            case wire.Leave() if self.running:
                return wire.Refused("the guest runs: it was not given away")
            case wire.Leave():
                self.gone = True
            case wire.Begin(session, run):
                self.arrived, self.session = True, session
                if run:
                    self._let_run()
            case wire.Load(sections):
                self.loaded = sections
            case wire.Save():
                return wire.Saved([Section("counter", 0, 1, bytes(8))])
            case wire.Statistics():
                return wire.Told(0.0, 0.0)
        return wire.Done()

    def _let_run(self) -> None:
        if not self.running:
            self.running = self.arrived = True
            self._story.tell(f"{self.name}-runs", "the {} guest runs", self.name)
            self._on_run(self)

    @property
    def state(self) -> wire.State:
        """As a guest describes itself."""
        if not self.arrived:
            return "waiting"
        if self.gone:
            return "gone"
        return "running" if self.running else "paused"

    @property
    def runs(self) -> bool:
        """Whether it does now; one that hangs does, as far as anybody knows."""
        return self.running and not self.process.ended

    def scan(self) -> Pages:
        """As a WrittenScan: the pages written since the last one."""
        found = np.array(sorted(self.marks), np.uint32)
        self.marks.clear()
        return found

    def close(self) -> None:
        """As a WrittenScan: let go of it."""


class Talk:
    """A Conversation with a guest."""

    was_cut = is_over = False

    def __init__(self, guest: Guest) -> None:
        self._guest = guest

    def ask(self, request: wire.Request, expected: type, within_s: float = 5.0) -> wire.Answer:
        """The answer."""
        return self._guest.ask(request, int(within_s * 1e9))

    def tell(self, request: wire.Request) -> None:
        """It is told to a person alone."""

    def describe(self) -> tuple[wire.Answer, int]:
        """What it says of itself, and its memory, which stays the guest's."""
        return self._guest.ask(wire.Describe()), self._guest.memory.fd


class Machine:
    """What a GuestProcess is to its driver; one that is `ours` ends with us."""

    def __init__(self, processes: Processes, guest: Guest, *, ours: bool) -> None:
        self._guest = guest
        self._ours = ours
        identity = processes.maybe_identity(guest.process.pid)
        if identity is None:
            raise GuestError("no guest answers")
        self.process = identity
        self.talk = Talk(guest)

    @property
    def is_dead(self) -> bool:
        """Whether it has ended."""
        return self._guest.process.ended

    def close(self) -> None:
        """Let go of it."""
        if self._ours:
            self._guest.process.kill()
