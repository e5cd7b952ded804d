"""Mistake 4: quit flags raced with work still queued."""

import multiprocessing
from pathlib import Path

import numpy as np
import pytest

from protocol import control as c
from protocol.status import Status
from tests.faults.ends import RunningReceiver, RunningSource
from tests.faults.fake_destination import FakeDestination
from tests.faults.fake_source import FakeSource
from tests.faults.memories import ArrivingMemory, LeavingMemory, random_words
from tests.pipeline.guests.helpers import wait_until

PAGES = 2048
BATCH_PAGES = 4

pytestmark = pytest.mark.timeout(30)


@pytest.mark.parametrize("frames", [0, 1, 2, 7, 40, 150])
def test_a_source_ends_with_work_queued(folder: Path, frames: int) -> None:
    """A worker that is told to end between two jobs and is waited for, or sends half of one."""
    guest = LeavingMemory(random_words(PAGES))
    with (
        FakeDestination(folder) as there,
        RunningSource(there.uri, guest, batch_pages=BATCH_PAGES) as here,
    ):
        wait_until(lambda: len(there.frames) >= frames)
        here.coordinator.cancel.set()
        assert here.ended() is Status.CANCELLED
        assert guest.runs
        assert not multiprocessing.active_children()
        seqs = [frame.seq for frame in there.frames]
        assert len(set(seqs)) == len(seqs)


def wait_until_it_stands(source: RunningSource) -> None:
    """Wait until no more batches are given out: every worker has its hands full."""
    given, dispatcher = 0, source.coordinator.engine.dispatcher
    while not given or given != dispatcher.last_seq:
        given = dispatcher.last_seq
        source.join(0.2)


def test_a_source_ends_while_its_workers_cannot_send(folder: Path) -> None:
    """A worker that waits for its link, does not hear that it is over, and is waited for."""
    guest = LeavingMemory(random_words(PAGES))
    with FakeDestination(folder, window=64) as there:
        there.taking.clear()
        with RunningSource(there.uri, guest, codec="none") as here:
            wait_until_it_stands(here)
            here.coordinator.cancel.set()
            assert here.ended() is Status.CANCELLED
            assert not multiprocessing.active_children()


@pytest.mark.parametrize("frames", [0, 1, 5, 100, 300])
def test_a_destination_ends_between_two_batches(folder: Path, frames: int) -> None:
    """A batch of which half is in memory, or one behind another that is missing."""
    content = random_words(PAGES)
    guest = ArrivingMemory(PAGES)
    with (
        RunningReceiver(guest, workers=2) as there,
        FakeSource(there.uri, content, batch_pages=BATCH_PAGES) as here,
    ):
        here.start_round()
        here.send_frames(*range(1, here.batches + 1))
        while frames and here.expect(c.Applied).seq < frames:
            pass
        there.receiver.cancel.set()
        assert there.ended() is Status.CANCELLED
        written = guest.words().any(axis=1)
        count = int(np.count_nonzero(written))
        assert count >= frames * BATCH_PAGES
        assert count % BATCH_PAGES == 0
        assert np.array_equal(guest.words()[:count], content[:count])
