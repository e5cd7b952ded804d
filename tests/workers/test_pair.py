"""Real compress workers and real decompress workers, joined: memory goes across whole."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from protocol.frames import FrameLimits, PageKind
from protocol.limits import PAGE_BYTES
from tests.workers.driving import Context, hear_from, started
from tests.workers.memories import memory_file, random_pages, text_pages
from workers.compress import CompressSettings, compress_worker
from workers.decompress import DecompressSettings, decompress_worker
from workers.link import PoolAddress, remove_socket
from workers.memory import PassedFd, page_hashes
from workers.messages import Arrived, Connect, Grant, SendJob, Sent
from workers.pool import Pool

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


@dataclass
class Pair:
    """Two workers here, two workers there, connected; the slots and hashes that they fill."""

    here: Pool
    there: Pool
    slots: int
    hashes: int
    codec: str

    def send_all(self) -> list[Arrived]:
        """Send every page once; what arrives."""
        for worker in self.there.workers:
            self.there.send(worker, Grant(list(range(worker, JOBS, 2))))
        for seq in range(1, JOBS + 1):
            pages = np.arange((seq - 1) * BATCH, min(seq * BATCH, PAGES), dtype=np.uint32)
            job = SendJob(seq, 0, 1, 0, seq % 2, False, self.codec, 1, pages.tobytes())
            self.here.send(seq // 2 % 2, job)
        arrived = [hear_from(self.there, Arrived) for _ in range(JOBS)]
        assert all(message.seq % 2 == worker for worker, message in arrived)
        assert {hear_from(self.here, Sent)[1].seq for _ in range(JOBS)} == {*range(1, JOBS + 1)}
        return [message for _, message in arrived]


@contextmanager
def paired(context: Context, folder: Path, memory: bytes, codec: str) -> Iterator[Pair]:
    """The workers of both ends, over `memory`."""
    with ExitStack() as stack:
        fd = stack.enter_context(memory_file(PAGES, memory))
        slots = stack.enter_context(memory_file(JOBS * BATCH))
        hashes, live = (stack.enter_context(memory_file(2)) for _ in range(2))
        endpoints = [f"ipc://{folder / f'data{lane}'}" for lane in range(2)]
        for endpoint in endpoints:
            stack.callback(remove_socket, endpoint)

        def receiving(address: PoolAddress) -> DecompressSettings:
            return DecompressSettings(
                address=address,
                endpoint=endpoints[address.worker],
                limits=LIMITS,
                slots=PassedFd(slots),
                memory=(),
                hashes=None,
            )

        def sending(address: PoolAddress) -> CompressSettings:
            return CompressSettings(
                address=address,
                session=SESSION,
                batch_pages=BATCH,
                content_digest=True,
                block_pages=(PAGES,),
                memory=(PassedFd(fd),),
                hashes=PassedFd(hashes),
                live=PassedFd(live),
            )

        there = stack.enter_context(started(context, decompress_worker, receiving, count=2))
        here = stack.enter_context(started(context, compress_worker, sending, count=2))
        here.broadcast(Connect(endpoints))
        yield Pair(here, there, slots, hashes, codec)


@pytest.mark.parametrize("codec", ["none", "zlib", "zstd", "lz4"])
def test_memory_goes_across_whole(context: Context, folder: Path, codec: str) -> None:
    """Anything at all between reading a page here and having it in a slot there."""
    memory = content()
    with paired(context, folder, memory, codec) as pair:
        arrived = pair.send_all()
        assert _rebuilt(arrived, pair.slots) == memory
        assert _hashes_that_came(arrived, page_hashes(pair.hashes, (PAGES,))[0])


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
