"""A compress worker that a test drives by hand, and the lanes that it sends to."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import zmq
from numpy.typing import NDArray

from protocol.frame_opening import decode_batch, decode_hello
from protocol.frames import Batch, FrameLimits, PageKind
from protocol.limits import PAGE_BYTES
from tests.workers.driving import PATIENCE_MS, Context, hear, started
from tests.workers.memories import indices, memory_file, page
from workers.codecs import decompress
from workers.compress import CompressSettings, compress_worker
from workers.link import PoolAddress
from workers.live import LiveSettings
from workers.memory import PassedFd, page_hashes
from workers.messages import Connect, ScanJob, Scanned, SendJob, Sent
from workers.pool import Pool

SESSION = bytes(range(16))
BATCH_PAGES = 8
BLOCK_PAGES = (32, 16)
LIMITS = FrameLimits(SESSION, BLOCK_PAGES, BATCH_PAGES)

Frame = tuple[bytes, bytes]


@dataclass
class Compressor:
    """The worker's pool, the memory that it reads, its settings and the ends of its lanes."""

    pool: Pool
    memory: list[int]
    live: LiveSettings
    lanes: list[zmq.Socket[bytes]]
    codec: str
    tables: list[NDArray[np.uint64]] = field(default_factory=list)
    greeted: set[int] = field(default_factory=set)

    def give(
        self,
        seq: int,
        *pages: int,
        block: int = 0,
        lane: int = 0,
        attempt: int = 0,
        final: bool = False,
        level: int = 1,
    ) -> None:
        """Give the worker a job."""
        asked = indices(*pages).tobytes()
        job = SendJob(seq, attempt, 7, block, lane, final, self.codec, level, asked)
        self.pool.send(0, job)

    def scan(self, block: int, first: int, count: int) -> list[int]:
        """The pages that differ from the table."""
        self.pool.send(0, ScanJob(3, block, first, count))
        answer = hear(self.pool, Scanned)
        assert answer.job == 3
        return np.frombuffer(answer.pages, np.uint32).tolist()

    def sent(self) -> Sent:
        """The worker's word that a frame is out."""
        return hear(self.pool, Sent)

    def frame(self, lane: int = 0) -> Frame:
        """The next frame of a lane, behind the hello that must open it."""
        assert self.lanes[lane].poll(PATIENCE_MS), "no frame in time"
        if lane not in self.greeted:
            _, hello = self.lanes[lane].recv_multipart()
            assert decode_hello(hello, SESSION) == 0
            self.greeted.add(lane)
            assert self.lanes[lane].poll(PATIENCE_MS), "no frame in time"
        _, head, payload = self.lanes[lane].recv_multipart()
        return head, payload

    def batch(self, lane: int = 0) -> Batch:
        """The next frame of a lane, decoded."""
        return decode_batch(*self.frame(lane), LIMITS)

    def job(
        self, seq: int, *pages: int, attempt: int = 0, final: bool = False, level: int = 1
    ) -> Batch:
        """Give a job and take its frame."""
        self.give(seq, *pages, attempt=attempt, final=final, level=level)
        assert self.sent().seq == seq
        return self.batch()


def contents(batch: Batch) -> dict[int, bytes]:
    """What a batch says of each of its pages."""
    raw = bytearray(batch.data_pages * PAGE_BYTES)
    decompress(batch.codec, batch.payload, memoryview(raw))
    zero = bytes(PAGE_BYTES)
    places = np.cumsum(batch.kinds == PageKind.DATA) - 1
    return {
        int(index): page(bytes(raw), int(place)) if kind == PageKind.DATA else zero
        for index, kind, place in zip(batch.pages, batch.kinds, places, strict=True)
    }


@contextmanager
def compressing(
    context: Context,
    folder: Path,
    content: bytes,
    *,
    codec: str = "zlib",
    hashed: bool = True,
    digest: bool = True,
    lanes: int = 1,
) -> Iterator[Compressor]:
    """A worker over two blocks, of which the first begins with `content`."""
    with ExitStack() as stack:
        memory = [stack.enter_context(memory_file(pages)) for pages in BLOCK_PAGES]
        os.pwrite(memory[0], content, 0)
        live_fd = stack.enter_context(memory_file(1))
        table_fd = stack.enter_context(memory_file(1))
        live = LiveSettings(live_fd)

        def settings(address: PoolAddress) -> CompressSettings:
            return CompressSettings(
                address=address,
                session=SESSION,
                batch_pages=BATCH_PAGES,
                content_digest=digest,
                block_pages=BLOCK_PAGES,
                memory=tuple(PassedFd(fd) for fd in memory),
                hashes=PassedFd(table_fd) if hashed else None,
                live=PassedFd(live_fd),
            )

        pool = stack.enter_context(started(context, compress_worker, settings))
        ends = [stack.enter_context(_listening(context, folder / f"{n}")) for n in range(lanes)]
        pool.send(0, Connect([end.getsockopt_string(zmq.LAST_ENDPOINT) for end in ends]))
        yield Compressor(pool, memory, live, ends, codec, page_hashes(table_fd, BLOCK_PAGES))


@contextmanager
def _listening(context: Context, path: Path) -> Iterator[zmq.Socket[bytes]]:
    end = context.socket(zmq.ROUTER)
    end.rcvhwm = 1
    end.bind(f"ipc://{path}")
    try:
        yield end
    finally:
        end.close(0)
        path.unlink()
