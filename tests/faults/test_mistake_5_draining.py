"""Mistake 5: every worker was drained at every iteration, so all of them starved."""

from pathlib import Path
from threading import Event
from time import monotonic

import pytest

from pipeline.source.coordinator import Coordinator
from pipeline.source.rounds import WINDOW_NS
from protocol.status import Status
from tests.faults.ends import RunningSource
from tests.faults.fake_destination import FakeDestination
from tests.faults.memories import LeavingMemory, random_words
from tests.pipeline.guests.helpers import wait_until

FRAMES = 48
BATCH_PAGES = 4
PACE_S = 0.02
"""A round of 48 frames takes nearly ten windows."""

pytestmark = pytest.mark.timeout(30)


class OnlyAhead:
    """Acknowledges at a pace, and none of the first round without two later frames in hand."""

    def __init__(self) -> None:
        self.began = 0.0
        self.ended = 0.0

    def __call__(self, fake: FakeDestination) -> int:
        """How far frames are acknowledged now."""
        now = monotonic()
        if fake.arrived < FRAMES:
            self.began = self.began or now * bool(fake.arrived)
            return min(fake.arrived - 2, int((now - self.began) / PACE_S))
        self.ended = self.ended or now
        return fake.arrived


def test_workers_are_not_drained_at_a_window(folder: Path) -> None:
    """A sender that waits at the end of each window until nothing is out."""
    policy = OnlyAhead()
    guest = LeavingMemory(random_words(FRAMES * BATCH_PAGES))
    with (
        FakeDestination(folder, policy) as there,
        RunningSource(there.uri, guest, batch_pages=BATCH_PAGES) as here,
    ):
        assert here.ended() is Status.COMPLETED, here.coordinator.error
        assert policy.ended - policy.began > 4 * WINDOW_NS / 1e9
        numbers = [start.round_no for start, _ in there.rounds]
        assert numbers == list(range(1, max(numbers) + 1))
        assert len(numbers) >= 2


def dirties_until_round_3(source: Coordinator) -> None:
    if source.engine.dispatcher.round_no < 3:
        source.engine.guest.memory.words[:8] += 1  # type: ignore[attr-defined]


def test_the_fence_falls_once_a_round(folder: Path) -> None:
    """A round that begins while the one before it is not applied, or a scan behind the fence."""
    released = Event()
    guest = LeavingMemory(random_words(FRAMES * BATCH_PAGES))

    def holds_the_last(fake: FakeDestination) -> int:
        return fake.arrived if released.is_set() else FRAMES - 1

    with (
        FakeDestination(folder, holds_the_last) as there,
        RunningSource(
            there.uri,
            guest,
            on_tick=dirties_until_round_3,
            parameters={"downtime_limit": 0},
            batch_pages=BATCH_PAGES,
        ) as here,
    ):
        wait_until(lambda: there.arrived == FRAMES, 10)
        wait_until(lambda: here.coordinator.engine.statistics.dirty_sync_count == 1)
        here.join(0.3)
        assert len(there.rounds) == 1
        assert len(there.frames) == FRAMES
        released.set()
        assert here.ended() is Status.COMPLETED, here.coordinator.error
        assert len(there.rounds) >= 3
        assert all(start.first_seq == applied + 1 for start, applied in there.rounds)
