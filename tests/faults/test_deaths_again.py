"""Workers that are killed again and again: the migration fails, says by what, and the guest stays.

Both ends are threads of this process, so that both pools are in reach.
"""

import os
import re
from collections.abc import Iterator
from contextlib import closing
from signal import SIGKILL

import numpy as np
import pytest

from pipeline.result import Result
from pipeline.source import rounds
from pipeline.source.coordinator import Coordinator
from tests.faults.ends import RunningReceiver
from tests.faults.leaving import before_rounds, leave
from tests.faults.memories import ArrivingMemory, LeavingMemory, random_words
from tests.faults.relay import Relay, Way
from tests.system.migrations import settings
from workers.pool import REPLACEMENTS, Pool

PAGES = 64
CONFIG = settings(tracker="hash")


@pytest.fixture
def there(folder: object) -> Iterator[RunningReceiver]:
    """A destination with one decompress worker."""
    with RunningReceiver(ArrivingMemory(PAGES)) as receiver:
        yield receiver


@pytest.fixture
def guest(folder: object) -> Iterator[LeavingMemory]:
    """A guest of one frame."""
    with closing(LeavingMemory(random_words(PAGES))) as made:
        yield made


class Killer:
    """Kills workers of a stage, one after the other."""

    def __init__(self, stage: str, there: RunningReceiver) -> None:
        self._stage = stage
        self._there = there
        self.killed: list[int] = []

    def pool(self, coordinator: Coordinator) -> Pool | None:
        """The workers, once there are some."""
        intake = self._there.receiver.engine.intake
        if self._stage == "compress":
            return coordinator.engine.pool
        return intake.pool if intake else None

    def kill(self, pool: Pool, worker: int) -> None:
        """Kill one that is up."""
        os.kill(pool._processes[worker].pid, SIGKILL)
        self.killed.append(worker)


def check_failure(here: Result, there: RunningReceiver, reason: str) -> None:
    """Both ends give `reason` as theirs, and the guest is at the source."""
    assert (here.status, here.guest_alive) == ("failed", "source")
    assert there.ended() == "failed"
    for told in (here.error_desc, there.receiver.error):
        assert re.search(reason, str(told)), told


@pytest.mark.parametrize(
    ("stage", "how"),
    [
        ("compress", r"compress worker \d+ \(pid \d+\) died, exit code -9, with nothing in hand"),
        ("decompress", "the connection of lane 0 was cut"),
    ],
)
def test_a_frame_whose_workers_die_every_time(
    there: RunningReceiver, guest: LeavingMemory, stage: str, how: str
) -> None:
    """A frame that kills whoever takes it, given out for ever."""
    killer, wanted = Killer(stage, there), 0

    def look(coordinator: Coordinator) -> None:
        nonlocal wanted
        pool, head = killer.pool(coordinator), coordinator.engine.dispatcher.head
        if not (
            pool and head and head.attempt >= wanted and coordinator.engine.dispatcher.all_sent
        ):
            return
        worker = head.worker if stage == "compress" else max(pool.endpoints, default=-1)
        if worker in pool.endpoints and worker not in killer.killed:
            killer.kill(pool, worker)
            wanted = head.attempt + 1

    with Relay(there.uri) as relay:

        def hold(coordinator: Coordinator) -> None:
            before_rounds(coordinator, lambda _: relay.hold(Way.DATA))

        here = leave(CONFIG, relay.uri, guest, at_first=hold, on_tick=look)
        check_failure(here, there, f"frame 1 did not arrive, redone 3 times: {how}$")
    assert guest.runs
    assert len(killer.killed) > 1


@pytest.mark.parametrize("stage", ["compress", "decompress"])
def test_more_workers_die_than_may(
    there: RunningReceiver, guest: LeavingMemory, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    """Workers that are started for as long as somebody kills them."""
    monkeypatch.setattr(rounds, "HOPELESS_ROUNDS", 100)
    killer = Killer(stage, there)

    def look(coordinator: Coordinator) -> None:
        pool, count = killer.pool(coordinator), len(killer.killed)
        is_time = count <= REPLACEMENTS and coordinator.engine.dispatcher.round_no > count
        if is_time and pool and pool.endpoints and not set(killer.killed) & set(pool.workers):
            killer.kill(pool, max(pool.endpoints))

    def keep_writing(coordinator: Coordinator) -> None:
        engine, coordinator.pacing.rounds.most_ms = coordinator.engine, 0.0
        scan = engine.scan

        def write_and_scan() -> None:
            engine.pump.wait(lambda: engine.dispatcher.all_sent)
            guest.memory.words[:] += np.uint64(1)
            scan()

        engine.scan = write_and_scan  # type: ignore[method-assign]

    here = leave(CONFIG, there.uri, guest, at_first=keep_writing, on_tick=look)
    lost = f"{REPLACEMENTS + 1} {stage} workers were lost"
    how = rf"{stage} worker \d+ \(pid \d+\) died, exit code -9, .*; {lost}$"
    check_failure(here, there, how)
    assert guest.runs
