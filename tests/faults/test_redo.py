"""A page that the guest writes between a frame and its redo: right at the end, whichever copy
arrives."""

import os
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from pipeline import uffd
from pipeline.guests.base import Mapping
from pipeline.source.coordinator import Coordinator
from tests.faults.ends import RunningReceiver
from tests.faults.leaving import before_rounds, leave
from tests.faults.memories import ArrivingMemory, LeavingMemory, random_words
from tests.faults.relay import Relay, Way
from tests.system.migrations import settings

PAGES, FRAMES, CONNECTIONS = 256, 4, 2
TRACKERS = ("uffd", "hash")
CODECS = ("none", "zlib", "zstd", "lz4")


class TrackedMemory(LeavingMemory):
    """A guest whose memory the kernel tracks, where it can."""

    _registration = -1

    def arm(self) -> list[Mapping]:
        """Have what this process writes tracked."""
        self._registration = uffd.register(self.memory.address, self.memory.words.nbytes)
        return [Mapping(0, os.getpid(), self.memory.address)]

    def why_no_uffd(self) -> str | None:
        """What the kernel lacks."""
        return uffd.probe()

    def close(self) -> None:
        """Let the memory go."""
        if self._registration >= 0:
            os.close(self._registration)
        super().close()


class WritingBetween:
    """Holds back what goes `way`; once all frames of the first round are sent, and the destination
    has got as far as it can, writes all pages and cuts the data connections."""

    def __init__(self, relay: Relay, guest: TrackedMemory, there: ArrivingMemory, way: Way) -> None:
        self._relay = relay
        self._guest = guest
        self._there = there
        self._way = way
        self.has_written = False

    def at_first(self, coordinator: Coordinator) -> None:
        """Have it held back from the start of the first round on."""

        def hold(round_no: int) -> None:
            if round_no == 1:
                self._relay.hold(self._way)

        before_rounds(coordinator, hold)

    def on_tick(self, coordinator: Coordinator) -> None:
        """Look whether it is time."""
        dispatcher = coordinator.engine.dispatcher
        if self.has_written:
            if dispatcher.redone == FRAMES:
                self._relay.release()
        elif dispatcher.round_no == 1 and dispatcher.all_sent and self._is_stuck():
            self.has_written = True
            self._guest.memory.words[:] += np.uint64(1)
            self._relay.cut_data()

    def _is_stuck(self) -> bool:
        if self._way is Way.DATA:
            return self._relay.held == CONNECTIONS
        return np.array_equal(self._there.words(), self._guest.memory.words)


def written_between(folder: Path, tracker: str, codec: str, way: Way) -> None:
    """Migrate, and look at what has arrived."""
    if tracker == "uffd" and (reason := uffd.probe()):
        pytest.skip(reason)
    guest, arriving = TrackedMemory(random_words(PAGES) >> np.uint64(32)), ArrivingMemory(PAGES)
    with closing(guest), RunningReceiver(arriving) as there, Relay(there.uri) as relay:
        writing = WritingBetween(relay, guest, arriving, way)
        config = settings(tracker=tracker, codec=codec, batch_pages=PAGES // FRAMES)
        here = leave(config, relay.uri, guest, on_tick=writing.on_tick, at_first=writing.at_first)
        assert writing.has_written
        assert (here.error_desc, here.status, here.tracker) == (None, "completed", tracker)
        assert here.redone == FRAMES
        assert arriving.at_start is not None
        assert np.array_equal(arriving.at_start, guest.memory.words)


@pytest.mark.parametrize("tracker", TRACKERS)
@pytest.mark.parametrize("codec", CODECS)
def test_the_first_copy_is_lost(folder: Path, tracker: str, codec: str) -> None:
    """A redo of what was compressed before; a page that is told as sent and never was."""
    written_between(folder, tracker, codec, Way.DATA)


@pytest.mark.parametrize("tracker", TRACKERS)
@pytest.mark.parametrize("codec", CODECS)
def test_the_first_copy_arrives(folder: Path, tracker: str, codec: str) -> None:
    """A hash of the second copy, which nobody takes, so that the page counts as sent."""
    written_between(folder, tracker, codec, Way.ANSWERS)
