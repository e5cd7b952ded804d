"""Work for the owner's thread: done there, or refused when that ends; never lost."""

import sys
from collections.abc import Iterator
from concurrent.futures import Future
from threading import Event, Thread

import pytest

from pipeline.monitor.inbox import Inbox
from protocol.qmp import QmpError

ENDS = 300
PATIENCE_S = 5.0


@pytest.fixture
def _hasty() -> Iterator[None]:
    """Threads that take turns at every opportunity."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


class Putting(Thread):
    """Puts work until it is refused; what comes of all of it is in `futures`."""

    def __init__(self, inbox: Inbox) -> None:
        super().__init__(daemon=True)
        self._inbox = inbox
        self.futures: list[Future[int]] = []
        self.has_begun = Event()
        self.error: OSError | None = None

    def run(self) -> None:
        """Put, and look."""
        try:
            while not self.futures or not self._is_refused(self.futures[-1]):
                self.futures.append(self._inbox.put(lambda: 7))
                self.has_begun.set()
        except OSError as error:
            self.error = error

    def _is_refused(self, future: "Future[int]") -> bool:
        return future.done() and future.exception() is not None


@pytest.mark.usefixtures("_hasty")
def test_what_comes_while_it_is_closed_is_refused() -> None:
    """A write to a descriptor that is closed, or somebody else's by now."""
    for _ in range(ENDS):
        inbox = Inbox()
        putting = Putting(inbox)
        putting.start()
        assert putting.has_begun.wait(PATIENCE_S)
        inbox.serve()
        inbox.close()
        putting.join(PATIENCE_S)
        assert putting.error is None
        for future in putting.futures:
            error = future.exception(0)
            assert error is None or isinstance(error, QmpError)
