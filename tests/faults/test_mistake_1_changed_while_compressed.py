"""Mistake 1: a page changed while it was compressed, and the error was ignored."""

from pathlib import Path
from threading import Event, Thread

import numpy as np
import pytest
import xxhash

from protocol.digest import page_seed
from protocol.frames import Batch
from protocol.limits import PAGE_BYTES
from protocol.status import Status
from tests.faults.ends import END_S, RunningSource
from tests.faults.fake_destination import FakeDestination
from tests.faults.memories import LeavingMemory, Words, random_words
from tests.pipeline.guests.helpers import wait_until

BATCH_PAGES = 1024
"""4 MiB take some ms to hash and compress: the writer below is through all of it by then."""
FRAMES = 8
"""Two rounds; from then on nobody writes, so that the migration comes to its end."""


class Rewriter:
    """Changes every page of a guest again and again until it is stopped."""

    def __init__(self, content: Words) -> None:
        self._content = content
        self._stopping = Event()
        self._thread = Thread(target=self._rewrite, daemon=True)
        self.guest = LeavingMemory(content, on_stop=self.stop)
        self._thread.start()

    def _rewrite(self) -> None:
        number = 0
        while not self._stopping.is_set():
            number += 1
            np.bitwise_xor(self._content, np.uint64(number), out=self.guest.memory.words)

    def stop(self) -> None:
        """What was written last stays."""
        self._stopping.set()
        self._thread.join()


def is_one_copy(frame: Batch, payload: bytes) -> bool:
    """Whether the hashes in a frame are those of the bytes that travelled with them."""
    starts = range(0, len(payload), PAGE_BYTES)
    seed = page_seed(frame.session)
    pages = [payload[start : start + PAGE_BYTES] for start in starts]
    hashes = [xxhash.xxh3_64_intdigest(page, seed) for page in pages]
    return frame.hashes is not None and frame.hashes.tolist() == hashes


@pytest.mark.timeout(30)
@pytest.mark.parametrize("codec", ["zlib", "none"])
def test_a_page_is_hashed_and_sent_from_one_copy(folder: Path, codec: str) -> None:
    """Pages that are read twice, or sent from a buffer that is already filled anew."""
    rewriter = Rewriter(random_words(4 * BATCH_PAGES))
    with (
        FakeDestination(folder) as there,
        RunningSource(there.uri, rewriter.guest, codec=codec, batch_pages=BATCH_PAGES) as here,
    ):
        wait_until(lambda: len(there.frames) >= FRAMES or not here.is_alive(), END_S)
        rewriter.stop()
        assert here.ended() is Status.COMPLETED, here.coordinator.error
        for frame, payload in zip(there.frames, there.payloads, strict=True):
            assert is_one_copy(frame, payload), f"seq {frame.seq} is not one copy"
        assert np.array_equal(there.memory(), rewriter.guest.memory.words)


@pytest.mark.timeout(30)
def test_an_error_of_the_compressor_ends_the_migration(folder: Path) -> None:
    """A compressor's error that is swallowed, so that something else travels instead."""
    guest = LeavingMemory(random_words(64))
    wrong = {"compress_level": 99}
    with (
        FakeDestination(folder) as there,
        RunningSource(there.uri, guest, parameters=wrong) as here,
    ):
        assert here.ended() is Status.FAILED
        assert "compress worker" in str(here.coordinator.error)
        wait_until(lambda: there.ending is not None)
        assert there.ending is not None
        assert there.ending.failed
        assert not there.frames
        assert guest.runs
