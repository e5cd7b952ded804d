"""Mistake 6: the sender blocked on a busy worker."""

import multiprocessing
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event

import pytest

from pipeline.source.dispatcher import CREDIT
from protocol.status import Status
from tests.faults.ends import END_S, RunningSource
from tests.faults.fake_destination import FakeDestination
from tests.faults.memories import LeavingMemory, random_words
from tests.pipeline.guests.helpers import wait_until

WINDOW = 24


@contextmanager
def stopped_worker() -> Iterator[None]:
    """One of two compress workers does nothing at all."""
    pid = next(p.pid for p in multiprocessing.active_children() if p.name == "compress worker 0")
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):  # who stands still for long is replaced
            os.kill(pid, signal.SIGCONT)


@pytest.mark.timeout(30)
def test_a_worker_that_stands_still_holds_nobody_up(folder: Path) -> None:
    """A dispatcher that waits for the worker whose turn it is, and hears nothing meanwhile."""
    stands = Event()
    guest = LeavingMemory(random_words(2048))
    with (
        FakeDestination(
            folder, lambda fake: fake.arrived if stands.is_set() else 0, window=WINDOW
        ) as there,
        RunningSource(there.uri, guest, batch_pages=4) as here,
    ):
        wait_until(lambda: there.arrived == WINDOW, END_S)
        with stopped_worker():
            stands.set()
            wait_until(lambda: len(there.frames) >= there.applied + WINDOW - CREDIT > WINDOW, 10)
            heard = there.heartbeats
            wait_until(lambda: there.heartbeats > heard)
            assert here.status.status is Status.ACTIVE
        assert here.ended() is Status.COMPLETED, here.coordinator.error
