"""Pools that tests drive by hand: started, talked to with deadlines, stopped."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import TypeVar

import psutil
import zmq

from workers.link import PoolAddress
from workers.messages import FromWorker
from workers.pool import Pool

Context = zmq.Context[zmq.Socket[bytes]]
PATIENCE_S = 20
PATIENCE_MS = PATIENCE_S * 1000
"""Far more than anything takes: a deadline for a machine that is busy with other things."""

Settings = TypeVar("Settings")
Message = TypeVar("Message", bound=FromWorker)


@contextmanager
def started(
    context: Context,
    body: Callable[[Settings], None],
    settings: Callable[[PoolAddress], Settings],
    count: int = 1,
    tick: Callable[[], None] = lambda: None,
) -> Iterator[Pool]:
    """A pool of `count` workers that are up; stopped at the end."""
    pool = Pool(context, "test")
    try:
        pool.start(count, body, settings, tick)
        yield pool
    finally:
        pool.stop()


def own(address: PoolAddress) -> PoolAddress:
    """The settings of a worker that needs nothing else."""
    return address


def hear(pool: Pool, kind: type[Message]) -> Message:
    """The next message of the pool's workers, which must be of this kind."""
    return hear_from(pool, kind)[1]


def hear_from(pool: Pool, kind: type[Message]) -> tuple[int, Message]:
    """The next message that is not dropped, and the worker that said it."""
    deadline = monotonic() + PATIENCE_S
    while monotonic() < deadline and (pool._heard or pool.socket.poll(PATIENCE_MS)):
        for worker, message in pool.receive():
            assert isinstance(message, kind), message
            return worker, message
    raise AssertionError(f"no {kind.__name__} in time")


def is_silent(pool: Pool, for_ms: int = 100) -> bool:
    """Whether nothing comes for a while: enough for a worker that would answer at once."""
    return not pool._heard and not pool.socket.poll(for_ms)


@contextmanager
def sleeping() -> Iterator[None]:
    """AssertionError where the only worker that there is works meanwhile."""
    (worker,) = (child for ours in psutil.Process().children() for child in ours.children())
    before = worker.cpu_times()
    yield
    after = worker.cpu_times()
    assert after.user + after.system - before.user - before.system < 0.15


def pid(pool: Pool, worker: int = 0) -> int:
    """The process of a worker of `bodies`, which says it when it is up."""
    return int(pool.endpoints[worker])


def until(true: Callable[[], bool], patience_s: float = PATIENCE_S) -> None:
    """Look every few ms until `true`; AssertionError at the deadline."""
    deadline = monotonic() + patience_s
    timer = zmq.Poller()
    while not true():
        assert monotonic() < deadline, "the deadline passed"
        timer.poll(5)
