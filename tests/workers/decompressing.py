"""A decompress worker that a test drives by hand, and connections to it."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import zmq
from numpy.typing import NDArray

from protocol.frames import Batch, PageKind, encode_batch, encode_hello
from protocol.limits import PAGE_BYTES
from tests.workers.compressing import BATCH_PAGES, BLOCK_PAGES, LIMITS, SESSION, Frame
from tests.workers.driving import Context, hear, started
from tests.workers.memories import hash_of, indices, memory_file
from workers.codecs import compress
from workers.decompress import DecompressSettings, decompress_worker
from workers.link import PoolAddress, remove_socket
from workers.memory import PassedFd, page_hashes
from workers.messages import Arrived, Checked, Grant, ReadBack, Refused
from workers.pool import Pool

SLOTS = 4
HELLO = encode_hello(SESSION, 0)
ZERO = bytes(PAGE_BYTES)


def batch_of(seq: int, pages: dict[int, bytes], codec: str = "zlib", attempt: int = 0) -> Batch:
    """A batch that says that these pages of block 0 hold this."""
    kinds = [PageKind.ZERO if content == ZERO else PageKind.DATA for content in pages.values()]
    data = [content for content in pages.values() if content != ZERO]
    used, payload = compress(codec, b"".join(data), 1)
    return Batch(
        session=SESSION,
        seq=seq,
        attempt=attempt,
        round_no=7,
        block=0,
        codec=used,
        pages=indices(*pages),
        kinds=np.array(kinds, np.uint8),
        hashes=np.array([hash_of(content) for content in data], np.uint64),
        payload=payload,
    )


def frame_of(batch: Batch, *, digest: bool = True) -> Frame:
    """The two parts in which a batch travels."""
    return encode_batch(batch, content_digest=digest), bytes(batch.payload)


@dataclass
class Decompressor:
    """The worker's pool, its slots, and the memory and hashes that it reads back."""

    context: Context
    pool: Pool
    slots: int
    memory: list[int]
    tables: list[NDArray[np.uint64]]

    def grant(self, *slots: int) -> None:
        """Let the worker fill these."""
        self.pool.send(0, Grant(list(slots)))

    def arrived(self) -> Arrived:
        """The worker's word that a slot is filled."""
        return hear(self.pool, Arrived)

    def refused(self) -> Refused:
        """The worker's word that a frame is not to be taken."""
        return hear(self.pool, Refused)

    def slot(self, number: int, pages: int = BATCH_PAGES) -> bytes:
        """The first `pages` pages of a slot."""
        size = LIMITS.payload_bytes
        return os.pread(self.slots, pages * PAGE_BYTES, number * size)

    def read_back(self, job: int, block: int, *pages: int) -> None:
        """Ask which of these pages are not in memory as they were sent."""
        self.pool.send(0, ReadBack(job, block, indices(*pages).tobytes()))

    def checked(self) -> tuple[int, list[int]]:
        """The number of a read-back and the pages that differ."""
        answer = hear(self.pool, Checked)
        return answer.job, np.frombuffer(answer.pages, np.uint32).tolist()

    @contextmanager
    def connected(self, *opening: bytes) -> Iterator[zmq.Socket[bytes]]:
        """A connection of its own, opened with these frames."""
        lane = self.context.socket(zmq.DEALER)
        lane.sndhwm = 1
        lane.connect(self.pool.endpoints[0])
        try:
            for hello in opening:
                lane.send(hello)
            yield lane
        finally:
            lane.close(0)


@contextmanager
def decompressing(context: Context, folder: Path, *, hashed: bool = True) -> Iterator[Decompressor]:
    """A worker with slots of which none is granted."""
    with ExitStack() as stack:
        memory = [stack.enter_context(memory_file(pages)) for pages in BLOCK_PAGES]
        slots = stack.enter_context(memory_file(SLOTS * BATCH_PAGES))
        table_fd = stack.enter_context(memory_file(1))
        endpoint = f"ipc://{folder / 'data'}"
        stack.callback(remove_socket, endpoint)

        def settings(address: PoolAddress) -> DecompressSettings:
            return DecompressSettings(
                address=address,
                endpoint=endpoint,
                limits=LIMITS,
                slots=PassedFd(slots),
                memory=tuple(PassedFd(fd) for fd in memory),
                hashes=PassedFd(table_fd) if hashed else None,
            )

        pool = stack.enter_context(started(context, decompress_worker, settings))
        made = Decompressor(context, pool, slots, memory, page_hashes(table_fd, BLOCK_PAGES))
        yield made
        made.tables.clear()  # a mapping holds its file open
