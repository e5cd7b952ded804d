"""What hosts are asked, and when their answers come, or are late: all of it in one thread."""

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from queue import Empty, Queue

from pipeline.cluster.dask import Dask

TURN_S = 0.25
Happening = Callable[[], None]
Key = tuple[str, str]
"""Of an attempt, and what is waited for."""


class Questions:
    """To the hosts of `dask`, whose threads put into `happenings` what is to be done in ours."""

    def __init__(
        self, dask: Dask, happenings: "Queue[Happening]", clock: Callable[[], float]
    ) -> None:
        self._dask = dask
        self._happenings = happenings
        self._clock = clock
        self._deadlines: dict[Key, tuple[float, Happening]] = {}

    def turn(self) -> None:
        """Wait a moment for something to happen; do all that has, and what is late."""
        with suppress(Empty):
            self._happenings.get(timeout=TURN_S)()
            for _ in range(self._happenings.qsize()):
                self._happenings.get_nowait()()
        for key, (at_s, do) in list(self._deadlines.items()):
            if at_s <= self._clock() and self._deadlines.pop(key, None) is not None:
                do()

    def within(self, key: Key, seconds: float, late: Happening, *, once: bool = False) -> None:
        """Do `late` in so many seconds, unless it is forgotten until then; `once`: what was said
        before holds."""
        if not once or key not in self._deadlines:
            self._deadlines[key] = self._clock() + seconds, late

    def forget(self, key: Key) -> bool:
        """It is not waited for any more; whether it was."""
        return self._deadlines.pop(key, None) is not None

    def forget_all(self, token: str) -> None:
        """Drop all deadlines of an attempt."""
        for key in [key for key in self._deadlines if key[0] == token]:
            del self._deadlines[key]

    def tell(self, host: str, function: Callable[..., object], *arguments: object) -> None:
        """Have something done there; whether it was, nobody waits for."""
        self._dask.run(host, function, *arguments, then=lambda _: None)

    def run(
        self,
        host: str,
        function: Callable[..., object],
        *arguments: object,
        then: Callable[[object], None],
    ) -> None:
        """Have it done there, however long it takes; `then` hears what it returns or raises."""
        answered = partial(self._later, then)
        self._dask.run(host, function, *arguments, then=answered)

    def _later(self, then: Callable[[object], None], answer: object) -> None:
        """In a thread of Dask's."""
        self._happenings.put(partial(then, answer))

    def ask(
        self,
        token: str,
        host: str,
        function: Callable[..., object],
        *arguments: object,
        within_s: float,
        then: Callable[[object], None],
    ) -> None:
        """As `run`; a TimeoutError is the answer of a host that does not give one in time."""
        key = token, function.__name__

        def answered(answer: object) -> None:
            if self.forget(key):
                then(answer)

        self.within(key, within_s, partial(then, TimeoutError(f"{host} does not answer")))
        self.run(host, function, *arguments, then=answered)
