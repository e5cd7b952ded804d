"""Real compress workers and real decompress workers, joined: memory goes across whole."""

import os
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from protocol.frames import FrameLimits, PageKind
from protocol.limits import PAGE_BYTES
from tests.workers.driving import Context, hear_from, started
from tests.workers.memories import memory_file, random_pages, text_pages
from workers.compress import CompressSettings, compress_worker
from workers.decompress import DecompressSettings, decompress_worker
from workers.live import LiveSettings
from workers.memory import PassedFd, page_hashes
from workers.messages import Arrived, Connect, Grant, SendJob, Sent

SESSION = b"a pair of rooms."
PAGES, BATCH = 4 * 250, 64
LIMITS = FrameLimits(SESSION, (PAGES,), BATCH)
JOBS = -(-PAGES // BATCH)


def content() -> bytes:
    """Text, noise, zeros and zeros with a bit in them, in turn."""
    text, noise = text_pages(PAGES // 4), random_pages(PAGES // 4)
    odd = bytearray(PAGE_BYTES)
    odd[-1] = 1
    parts = []
    for start in range(0, len(text), PAGE_BYTES):
        end = start + PAGE_BYTES
        parts += [text[start:end], noise[start:end], bytes(PAGE_BYTES), bytes(odd)]
    return b"".join(parts)


@pytest.mark.parametrize("codec", ["none", "zlib", "zstd", "lz4"])
def test_memory_goes_across_whole(context: Context, folder: Path, codec: str) -> None:
    """Anything at all between reading a page here and having it in a slot there."""
    memory = content()
    with ExitStack() as stack:
        fd = stack.enter_context(memory_file(PAGES, memory))
        slots = stack.enter_context(memory_file(JOBS * BATCH))
        sent_fd, live_fd = (stack.enter_context(memory_file(2)) for _ in range(2))
        LiveSettings(live_fd).level = 1
        there = stack.enter_context(
            started(
                context,
                decompress_worker,
                lambda address: DecompressSettings(
                    address=address,
                    endpoint=f"ipc://{folder / f'data{address.worker}'}",
                    limits=LIMITS,
                    slots=PassedFd(slots),
                    memory=(),
                    hashes=None,
                ),
                count=2,
            )
        )
        here = stack.enter_context(
            started(
                context,
                compress_worker,
                lambda address: CompressSettings(
                    address=address,
                    session=SESSION,
                    codec=codec,
                    batch_pages=BATCH,
                    content_digest=True,
                    block_pages=(PAGES,),
                    memory=(PassedFd(fd),),
                    hashes=PassedFd(sent_fd),
                    live=PassedFd(live_fd),
                ),
                count=2,
            )
        )
        here.broadcast(Connect([there.endpoints[0], there.endpoints[1]]))
        for worker in there.workers:
            there.send(worker, Grant(list(range(worker, JOBS, 2))))
        for seq in range(1, JOBS + 1):
            pages = np.arange((seq - 1) * BATCH, min(seq * BATCH, PAGES), dtype=np.uint32)
            job = SendJob(seq, 0, 1, 0, seq % 2, False, pages.tobytes())
            here.send(seq // 2 % 2, job)
        arrived = [hear_from(there, Arrived) for _ in range(JOBS)]
        assert sorted(hear_from(here, Sent)[1].seq for _ in range(JOBS)) == [*range(1, JOBS + 1)]
        assert all(message.seq % 2 == worker for worker, message in arrived)
        rebuilt = _rebuilt([message for _, message in arrived], slots)
        table = page_hashes(sent_fd, (PAGES,))[0].copy()
    assert rebuilt == memory
    assert _hashes_that_came([message for _, message in arrived], table)


def _rebuilt(arrived: list[Arrived], slots: int) -> bytes:
    memory = np.full((PAGES, PAGE_BYTES), 0xEE, np.uint8)
    for message in arrived:
        pages = np.frombuffer(message.pages, np.uint32)
        is_data = np.frombuffer(message.kinds, np.uint8) == PageKind.DATA
        raw = os.pread(slots, LIMITS.payload_bytes, message.slot * LIMITS.payload_bytes)
        data = np.frombuffer(raw, np.uint8).reshape(-1, PAGE_BYTES)
        memory[pages[is_data]] = data[: np.count_nonzero(is_data)]
        memory[pages[~is_data]] = 0
    return memory.tobytes()


def _hashes_that_came(arrived: list[Arrived], table: np.ndarray) -> bool:
    """Whether the hashes in the frames are those that the source noted."""
    for message in arrived:
        pages = np.frombuffer(message.pages, np.uint32)
        is_data = np.frombuffer(message.kinds, np.uint8) == PageKind.DATA
        assert message.hashes is not None
        came = np.frombuffer(message.hashes, np.uint64)
        if not np.array_equal(table[pages[is_data]], came):
            return False
    return True
