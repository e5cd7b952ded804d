"""The two real ends as threads of a test, and what their processes cost."""

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from threading import Thread

import psutil

from pipeline.config.model import Config
from pipeline.destination.receiver import Receiver
from pipeline.source.coordinator import Coordinator
from pipeline.source.tracking import Tracking
from protocol.status import INCOMING_TRANSITIONS, Status, StatusMachine
from protocol.uri import Uri, parse_uri
from tests.faults.memories import ArrivingMemory, LeavingMemory
from tests.system.migrations import settings

END_S = 10.0
IDLE_SHARE = 0.1
"""Of one core. What waits in a poll takes less than 0.02; what spins takes all it can get."""


class RunningReceiver(Thread):
    """A destination with `workers` decompress workers for `guest`. A context manager."""

    def __init__(self, guest: ArrivingMemory, workers: int = 1) -> None:
        super().__init__(daemon=True)
        self.guest = guest
        self.status = StatusMachine(INCOMING_TRANSITIONS)
        parameters = {"decompress-threads": workers}
        config = Config.model_validate(settings(parameters=parameters) | {"commit-timeout": END_S})
        self.receiver = Receiver(
            Uri("tcp", "127.0.0.1", 0),
            lambda: config,
            lambda *_: guest,
            self.status,
        )
        self._endpoint = self.receiver.engine.link.endpoint

    def run(self) -> None:
        """Take the guest in."""
        self.receiver.receive()

    @property
    def uri(self) -> Uri:
        """Where it listens."""
        return parse_uri(self._endpoint.replace("://", ":"))

    def __enter__(self) -> "RunningReceiver":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.receiver.cancel.set()
        self.ended()
        del self.receiver  # one that is kept keeps its slots mapped
        self.guest.close()

    def ended(self) -> Status:
        """How it ended; AssertionError when it does not end."""
        self.join(END_S)
        assert not self.is_alive(), "the destination does not end"
        return self.status.status


class RunningSource(Thread):
    """A source with two compress workers for `guest`, tracker hash. A context manager.

    `parameters` are what it is given past all checks.
    """

    def __init__(
        self,
        uri: Uri,
        guest: LeavingMemory,
        *,
        on_tick: Callable[[Coordinator], None] = lambda _: None,
        parameters: Mapping[str, object] | None = None,
        codec: str = "zlib",
        batch_pages: int = 64,
    ) -> None:
        super().__init__(daemon=True)
        config = Config.model_validate(settings(codec=codec, batch_pages=batch_pages))
        self._config = config.model_copy(
            update={"parameters": config.parameters.model_copy(update=dict(parameters or {}))}
        )
        self._uri = uri
        self._on_tick = on_tick
        self._made: Future[Coordinator] = Future()
        self.guest = guest
        self.status = StatusMachine()

    def run(self) -> None:
        """Send the guest."""
        tracking = Tracking("hash", "asked for")
        coordinator = Coordinator(
            self._config, self.guest, tracking, self.status, self._uri, self._tick
        )
        self._made.set_result(coordinator)
        coordinator.migrate()

    def _tick(self, _: int) -> None:
        self._on_tick(self.coordinator)

    def __enter__(self) -> "RunningSource":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.coordinator.cancel.set()
        self.ended()
        self._made = Future()  # a coordinator that is kept keeps its memory mapped
        self.guest.close()

    @property
    def coordinator(self) -> Coordinator:
        """What runs in the thread; look, do not touch."""
        return self._made.result(END_S)

    def ended(self) -> Status:
        """How it ended; AssertionError when it does not end."""
        self.join(END_S)
        assert not self.is_alive(), "the source does not end"
        return self.status.status


def spins(wait: Callable[[float], object], tries: int = 8) -> bool:
    """Whether this process and all below it are busy all the while that `wait(seconds)` waits.

    The first half second without work is the proof that nobody does: what still starts
    has several to come to rest in.
    """
    return not any(_busy_share(wait) < IDLE_SHARE for _ in range(tries))


def _busy_share(wait: Callable[[float], object]) -> float:
    before = _cpu_seconds()
    wait(0.5)
    return (_cpu_seconds() - before) / 0.5


def _cpu_seconds() -> float:
    me = psutil.Process()
    times = [process.cpu_times() for process in (me, *me.children(recursive=True))]
    return sum(spent.user + spent.system for spent in times)
