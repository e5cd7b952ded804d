"""Hosts that answer what a test says: for answers that real ones cannot be made to give."""

from collections.abc import Callable
from dataclasses import dataclass, field

from pipeline.cluster import tasks
from pipeline.cluster.ends import Look


@dataclass
class Asked:
    """A task on a host: `answer` gives what it returns."""

    host: str
    name: str
    arguments: tuple[object, ...]
    answer: Callable[[object], None] = field(repr=False)


class Hosts:
    """Stands for Dask: keeps what is asked. Whether nothing is new is said at once, but by those
    that hang."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.hanging: set[str] = set()

    def run(
        self,
        host: str,
        function: Callable[..., object],
        *arguments: object,
        then: Callable[[object], None],
    ) -> None:
        """As Dask's."""
        if function is tasks.look and host not in self.hanging:
            then(Look())
            return
        self.asked.append(Asked(host, function.__name__, arguments, then))

    def take(self, name: str) -> Asked:
        """The oldest question of that name; AssertionError where there is none."""
        found = next((one for one in self.asked if one.name == name), None)
        assert found is not None, (name, self.asked)
        self.asked.remove(found)
        return found


class Clock:
    """Time that a test lets pass."""

    now_s = 1000.0

    def __call__(self) -> float:
        """Now."""
        return self.now_s
