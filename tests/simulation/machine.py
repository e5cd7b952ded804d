"""A machine in virtual time: its processes, the workers among them, and what is on its disk.

Stands in for what the workers' pool knows of the system: a fork server, pidfds, an epoll.
"""

from collections.abc import Callable
from random import Random

from pipeline.records.processes import Process as Identity
from protocol.errors import MigrationError
from tests.simulation.clock import MS, Clock, Process
from tests.simulation.sockets import IN, Waitable
from tests.simulation.story import Story

BOOT = "virtual"
FORK_NS = 40 * MS


class Processes:
    """All processes, by pid; `bugs` are the errors that no process may end with."""

    def __init__(self, clock: Clock, story: Story, dice: Random) -> None:
        self.clock = clock
        self.dice = dice
        self.bugs: list[str] = []
        self._story = story
        self._by_pid: dict[int, Process] = {}

    def start(self, name: str, body: Callable[[], None], parent: Process | None = None) -> Process:
        """A process that runs `body`."""
        pid = 1000 + len(self._by_pid)

        def on_end(error: BaseException | None) -> None:
            self._story.tell("end", "{} ends{}", name, f": {error!r}" if error else "")
            if isinstance(error, Exception) and not isinstance(error, MigrationError):
                self.bugs.append(f"{name} ended with {error!r}")

        self._by_pid[pid] = Process(self.clock, name, pid, body, on_end, parent)
        return self._by_pid[pid]

    def named(self, words: str) -> list[Process]:
        """Those that live and have `words` in their names."""
        return [one for one in self._by_pid.values() if words in one.name and not one.ended]

    def all_unwound(self) -> bool:
        """Whether none of those that were killed is still at work."""
        return all(one.is_unwound for one in self._by_pid.values())

    def maybe_identity(self, pid: int) -> Identity | None:
        """As pipeline.records.processes' maybe_process."""
        process = self._by_pid.get(pid)
        return None if process is None or process.ended else Identity(pid, pid, BOOT)

    def this(self) -> Identity:
        """The process at work."""
        assert self.clock.current is not None
        return Identity(self.clock.current.pid, self.clock.current.pid, BOOT)


class Sentinel(Waitable):
    """Readable once the parent of a process has ended."""

    def __init__(self, child: Process) -> None:
        super().__init__(child)
        self._child = child

    def ready(self, flags: int) -> int:
        """Whether it has."""
        parent = self._child.parent
        return IN if parent is not None and parent.ended else 0


class Worker:
    """What a pool has of a worker process."""

    def __init__(
        self,
        processes: Processes,
        name: str,
        body: Callable[[object], None],
        settings: object,
        tick: Callable[[], None],
    ) -> None:
        self.name = name
        self._processes = processes
        owner = processes.clock.current
        for _ in range(1 + int(processes.dice.random() * 3)):
            processes.clock.sleep(int(FORK_NS * processes.dice.random()))
            tick()
        self._process = processes.start(name, lambda: body(settings), owner)
        self.pid = self._process.pid
        self.pidfd = self._process
        processes.clock.sleep(1)

    def has_ended(self, within_s: float = 0.0) -> bool:
        """Whether the process is gone, or goes in time."""
        clock = self._processes.clock
        until_ns = clock.now_ns + int(within_s * 1e9)
        while not self._process.ended and clock.now_ns < until_ns:
            clock.sleep(MS)
        return self._process.ended

    @property
    def exit_code(self) -> int:
        """Negative: it was killed."""
        return -9 if self._process.killed else 1

    def kill(self) -> None:
        """End it now; a dead process kills nobody."""
        owner = self._processes.clock.current
        if owner is None or not owner.killed:
            self._process.kill()

    def close(self) -> None:
        """Let go of it."""


class Epoll(Waitable):
    """Readable while one of the processes in it has ended."""

    def __init__(self, owner: Process | None) -> None:
        super().__init__(owner)
        self._processes: list[Process] = []

    def register(self, process: Process, flags: int) -> None:
        """Watch it."""
        self._processes.append(process)
        process.at_end.append(self.notify)

    def unregister(self, process: Process) -> None:
        """No more."""
        self._processes.remove(process)

    def fileno(self) -> "Epoll":
        """What a poller takes."""
        return self

    def ready(self, flags: int) -> int:
        """Whether one has ended."""
        for process in self._processes:  # half as long as any(); asked at every turn
            if process.ended:
                return IN
        return 0

    def close(self) -> None:
        """Watch nobody."""
