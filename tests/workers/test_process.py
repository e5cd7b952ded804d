"""A worker that is given up while it is being started."""

import multiprocessing
import time
from multiprocessing.context import ForkServerContext, ForkServerProcess
from threading import Event
from typing import cast

import pytest

from tests.pipeline.guests.helpers import wait_until
from workers.fork_server import fork_server
from workers.process import REAP_SECONDS, WorkerProcess

SLOW_S = REAP_SECONDS + 0.5


class Cancelled(Exception):
    """What the engine hears while its workers start."""


class Slow(ForkServerProcess):
    """One whose fork server has other things to do first, as on a machine that is busy."""

    started = Event()

    def start(self) -> None:
        """As late as that."""
        time.sleep(SLOW_S)
        super().start()
        self.started.set()


class SlowContext:
    """Makes such processes."""

    Process = Slow


def sleep(seconds: float) -> None:
    """What the worker does."""
    time.sleep(seconds)


def test_one_that_comes_late_is_not_left() -> None:
    """A command that never ends: at its exit it waits for a worker of which nobody knows."""
    fork_server()

    def tick() -> None:
        raise Cancelled

    context = cast("ForkServerContext", SlowContext())
    with pytest.raises(Cancelled):
        WorkerProcess(context, "worker", sleep, 60.0, tick)
    assert Slow.started.wait(10)
    wait_until(lambda: not multiprocessing.active_children(), within_s=5)
