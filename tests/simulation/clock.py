"""Virtual time and the processes that live in it: one event after the other, by the seed alone.

A process is a greenlet that runs real code until it waits; then the next event is due. One that
is killed gets `Killed` where it waits, and what it does while it unwinds has no effect.
"""

import heapq
from collections.abc import Callable
from functools import partial
from itertools import count

from greenlet import getcurrent, greenlet

US, MS, SECOND = 1_000, 1_000_000, 1_000_000_000
START_NS = 10**15


class Killed(BaseException):
    """The process was killed: nothing that it does from here on is seen by others."""


class Stuck(Exception):
    """Something still goes on when all should have ended."""


class Clock:
    """The events to come, by their time; `current` is the process at work, None in an event."""

    def __init__(self, limit_ns: int) -> None:
        self.now_ns = START_NS
        self.current: Process | None = None
        self._limit_ns = START_NS + limit_ns
        self._events: list[tuple[int, int, Callable[[], object]]] = []
        self._numbers = count()
        self.hub = getcurrent()

    def after(self, delay_ns: int, do: Callable[[], object]) -> None:
        """Have `do` called in `delay_ns`."""
        heapq.heappush(self._events, (self.now_ns + delay_ns, next(self._numbers), do))

    def run(self, until: Callable[[], bool]) -> None:
        """Let events happen until `until` holds; Stuck where it never does."""
        while not until():
            if not self._events or self._events[0][0] > self._limit_ns:
                raise Stuck
            self.now_ns, _, do = heapq.heappop(self._events)
            do()

    def sleep(self, delay_ns: int) -> None:
        """Let time pass for the process at work; none passes where nobody waits."""
        if self.current is not None and delay_ns > 0:
            self.current.sleep(delay_ns)

    def is_next(self, at_ns: int) -> bool:
        """Whether nothing happens before `at_ns`, so that it may be now at once."""
        return at_ns <= self._limit_ns and not (self._events and self._events[0][0] <= at_ns)

    def switch(self, process: "Process", task: greenlet) -> None:
        """Let `process` go on until it waits again, or ends. Only from an event."""
        self.current = process
        task.switch()
        self.current = None

    def to_hub(self) -> None:
        """Let the next event happen; comes back when the process at work is switched to."""
        self.hub.switch()


class Process:
    """A process: runs `body` from now on. `on_end` is called once, whatever its end is.

    `parent` is the one whose end it watches.
    """

    def __init__(
        self,
        clock: Clock,
        name: str,
        pid: int,
        body: Callable[[], None],
        on_end: Callable[[BaseException | None], None],
        parent: "Process | None" = None,
    ) -> None:
        self.name = name
        self.pid = pid
        self.ended = self.killed = self.hangs = False
        self.children: list[Process] = []
        self.at_end: list[Callable[[], None]] = []
        self._clock = clock
        self._body = body
        self._on_end = on_end
        self._task = greenlet(self._run, clock.hub)
        self._ticket = 0
        self._missed = self._sleeps = False
        clock.after(0, partial(self._go_on, 0))
        if parent is not None:
            parent.children.append(self)
        self.parent = parent

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            self._body()
        except (Killed, Exception) as caught:
            error = caught
        if not self.ended:
            self._end(error)

    def _end(self, error: BaseException | None) -> None:
        self.ended = True
        self._on_end(error)
        for do in self.at_end:
            do()
        for child in self.children:
            child.wake()

    def park(self, delay_ns: int | None) -> None:
        """Wait for `delay_ns`, or for ever, or until somebody wakes this process."""
        if self.killed:
            raise Killed
        self._ticket += 1
        if delay_ns is not None:
            at_ns = self._clock.now_ns + delay_ns
            if self._clock.is_next(at_ns):
                self._clock.now_ns = at_ns
                return
            self._clock.after(delay_ns, partial(self._go_on, self._ticket))
        self._clock.to_hub()
        if self.killed:
            raise Killed

    def sleep(self, delay_ns: int) -> None:
        """Let time pass, whoever wakes this process meanwhile."""
        self._sleeps = True
        try:
            self.park(delay_ns)
        finally:
            self._sleeps = False

    def wake(self) -> None:
        """Let it look again at what it waits for."""
        if not self._sleeps:
            self._go_on_soon()

    def _go_on_soon(self) -> None:
        self._clock.after(2 * US, partial(self._go_on, self._ticket))

    def _go_on(self, ticket: int) -> None:
        if self.ended or ticket != self._ticket:
            return
        if self.hangs:
            self._missed = True
            return
        self._ticket += 1
        self._clock.switch(self, self._task)

    def hang(self) -> None:
        """Stop it, as SIGSTOP does."""
        self.hangs = not self.ended

    def come_back(self) -> None:
        """Let it go on, as SIGCONT does."""
        self.hangs = False
        if self._missed:
            self._missed = False
            self._go_on_soon()

    def kill(self) -> None:
        """End it here and now, as SIGKILL does; it unwinds in an event of its own."""
        if not self.ended:
            self.killed = True
            self._end(Killed())
            self._clock.after(0, self._unwind)

    @property
    def is_unwound(self) -> bool:
        """Whether nothing of it is left to run."""
        return not self._task

    def _unwind(self) -> None:
        if self._task:
            self._clock.switch(self, self._task)
