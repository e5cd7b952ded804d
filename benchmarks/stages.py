"""Each stage alone, on one core, with the others replaced by nothing.

    python -m benchmarks.stages [--memory 1GiB] [--repeat 5] [--json PATH]

Rates are GiB of guest memory for each second of *processor* time of the thread that does the
stage, so that what else runs on the machine weighs less: medians of the repetitions. `dispatch` is
the coordinator with two null workers (`null_worker.py`), where what is sent counts as applied;
`apply` the receiver with slots that are full already, into memory that is allocated; `hash scan`,
of which the first maps the memory, and `compress` what a compress worker does, `decompress` what
the other end does with that; `delta` of pages of which 2 % have changed; `uffd scan` after a tenth
of them was written.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from time import thread_time

import numpy as np
import zmq
from rich.console import Console
from rich.table import Table

from benchmarks.arguments import count, memory_bytes
from benchmarks.image import build_image
from benchmarks.null_worker import NullSettings, null_worker
from benchmarks.report import machine, write_figures
from pipeline import uffd
from pipeline.destination.landing import Landing
from pipeline.destination.reassembly import Reassembly
from pipeline.guests.base import GuestBlock
from pipeline.source.codec_choice import RAW, FixedCodec
from pipeline.source.dirty import DirtyMap
from pipeline.source.dispatcher import Dispatcher
from pipeline.source.statistics import SourceStatistics
from protocol import xbzrle
from protocol.frame_opening import decode_batch
from protocol.frames import DATA, ZERO, Batch, FrameLimits, encode_batch
from protocol.limits import PAGE_BYTES
from workers.codecs import compress, decompress
from workers.fork_server import warm_up
from workers.memory import mapped_bytes, shared_memory
from workers.messages import Arrived, Sent
from workers.pages import PageBuffer, TableHasher
from workers.pool import Pool

GIB = 1 << 30
BATCH_PAGES = 256
CHANGED = [17, 100, *range(256, 264)]
"""The words of a page that change: 2 % of them, in three runs."""
SESSION = bytes(range(16))
WORKERS = 2
CODECS = ("none", "lz4", "zstd", "zlib")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="What each stage can do by itself")
    parser.add_argument("--memory", type=memory_bytes, default="1GiB", metavar="SIZE")
    parser.add_argument("--repeat", type=count, default=5)
    parser.add_argument("--json", type=Path, metavar="PATH", help="write every figure there")
    return parser.parse_args()


@contextmanager
def null_pool() -> Iterator[Pool]:
    """Workers that do nothing."""
    warm_up()
    with zmq.Context() as context:
        pool = Pool(context, "null")
        try:
            pool.start(WORKERS, null_worker, NullSettings, lambda: None)
            yield pool
        finally:
            pool.stop()


def dispatch(pool: Pool, pages: int) -> float:
    """The coordinator's loop: cut, give out, hear, count; what is sent is applied."""
    dirty, statistics = DirtyMap((pages,)), SourceStatistics(pages)
    limits = FrameLimits(SESSION, (pages,), BATCH_PAGES)
    dispatcher = Dispatcher(pool, dirty.mark, FixedCodec(RAW))
    dispatcher.open(WORKERS, limits.window(WORKERS))
    dirty.mark_extents(0, [(0, pages)])
    began = thread_time()
    statistics.start_round(pages)
    dispatcher.plan(dirty.take(BATCH_PAGES), pages)
    done: set[int] = set()
    while not dispatcher.all_applied:
        dispatcher.feed()
        pool.socket.poll(50)
        for worker, message in pool.receive():
            assert isinstance(message, Sent)
            statistics.add_sent(message, len(dispatcher.heard_sent(worker, message)[1]))
            done.add(message.seq)
        seq = dispatcher.applied
        while seq + 1 in done:
            seq += 1
        dispatcher.heard_applied(seq)
    return thread_time() - began


def apply(pages: int) -> float:
    """The receiver's part, into memory that was written before."""
    limits = FrameLimits(SESSION, (pages,), BATCH_PAGES)
    fd = shared_memory("stages", pages * PAGE_BYTES)
    allocate(fd, pages)
    landing = Landing(GuestBlock("ram", pages, fd))
    reassembly = Reassembly([landing], limits, limits.window(WORKERS), WORKERS, None)
    mapped_bytes(reassembly.fd)[:] = 1
    kinds = np.full(BATCH_PAGES, DATA).tobytes()
    began = thread_time()
    for seq, first in enumerate(range(0, pages, BATCH_PAGES), 1):
        (slot,) = reassembly.grant(1)
        wanted = np.arange(first, first + BATCH_PAGES, dtype=np.uint32).tobytes()
        reassembly.take(Arrived(seq, 0, 1, 0, slot, wanted, kinds, None, 0))
    took = thread_time() - began
    reassembly.close()
    os.close(fd)
    return took


def allocate(fd: int, pages: int) -> None:
    """Every page exists."""
    for first in range(0, pages, BATCH_PAGES):
        os.pwrite(fd, b"\1" * (BATCH_PAGES * PAGE_BYTES), first * PAGE_BYTES)


def hash_scan(hasher: TableHasher, fd: int, pages: int) -> float:
    """A worker's search for what has changed, which finds that all of it has."""
    table = np.zeros(pages, np.uint64)
    began = thread_time()
    for first in range(0, pages, 2048):
        hasher.differing(fd, np.arange(first, first + 2048, dtype=np.uint32), table)
    return thread_time() - began


def frames(fd: int, pages: int, codec: str) -> tuple[float, list[tuple[bytes, bytes]]]:
    """A compress worker's part; what it took, and what it would send."""
    buffer, made = PageBuffer(BATCH_PAGES), []
    took = 0.0
    for seq, first in enumerate(range(0, pages, BATCH_PAGES), 1):
        wanted = np.arange(first, first + BATCH_PAGES, dtype=np.uint32)
        began = thread_time()
        buffer.read(fd, wanted)
        nonzero = buffer.nonzero(BATCH_PAGES)
        kind, payload = compress(codec, buffer.gather(nonzero), 1)
        kinds = np.where(nonzero, DATA, ZERO)
        batch = Batch(SESSION, seq, 0, 1, 0, kind, wanted, kinds, None, payload)
        head = encode_batch(batch, content_digest=True)
        took += thread_time() - began
        made.append((head, bytes(payload)))
    return took, made


def opened(made: list[tuple[bytes, bytes]], pages: int) -> float:
    """A decompress worker's part."""
    limits = FrameLimits(SESSION, (pages,), BATCH_PAGES)
    slot = memoryview(bytearray(limits.payload_bytes))
    began = thread_time()
    for head, payload in made:
        batch = decode_batch(memoryview(head), memoryview(payload), limits)
        decompress(batch.codec, batch.payload, slot[: batch.data_pages * PAGE_BYTES])
    return thread_time() - began


def deltas(fd: int, pages: int) -> tuple[float, float]:
    """What it takes to find and encode the changes of pages that are cached, and to apply them."""
    buffer, took, applied = PageBuffer(BATCH_PAGES), 0.0, 0.0
    for first in range(0, pages, BATCH_PAGES):
        buffer.read(fd, np.arange(first, first + BATCH_PAGES, dtype=np.uint32))
        old, new = buffer.words.copy(), buffer.words
        new[:, CHANGED] += np.uint64(1)
        began = thread_time()
        runs = xbzrle.differences(old, new)
        section = xbzrle.encode(runs, new, xbzrle.sizes(runs, BATCH_PAGES) > 0)
        took, began = took + thread_time() - began, thread_time()
        xbzrle.apply(section, old)
        applied += thread_time() - began
        assert np.array_equal(old, new)
    return took, applied


def uffd_scan(pages: int) -> float:
    """One scan of memory of this process, of which a tenth was written."""
    fd = shared_memory("stages", pages * PAGE_BYTES)
    allocate(fd, pages)
    words = mapped_bytes(fd).view(np.uint64).reshape(pages, -1)
    registration = uffd.register(words.ctypes.data, words.nbytes)
    with uffd.WrittenScan(os.getpid(), words.ctypes.data, pages) as scan:
        scan.scan()
        words[::10, 0] += np.uint64(1)
        began = thread_time()
        assert len(scan.scan()) == -(-pages // 10)
        took = thread_time() - began
    os.close(registration)
    os.close(fd)
    return took


def measure(options: argparse.Namespace, image: int) -> dict[str, list[float]]:
    """Seconds of processor time, by stage, in the order of the repetitions."""
    pages = options.memory // PAGE_BYTES
    found: dict[str, list[float]] = {}

    def note(stage: str, seconds: float) -> None:
        found.setdefault(stage, []).append(seconds)

    with null_pool() as pool:
        for _ in range(options.repeat):
            note("dispatch", dispatch(pool, pages))
            note("apply", apply(pages))
            hasher = TableHasher(1)
            note("first hash scan", hash_scan(hasher, image, pages))
            note("hash scan", hash_scan(hasher, image, pages))
            packed, unpacked = deltas(image, pages)
            note("delta encode", packed)
            note("delta decode", unpacked)
            note("uffd scan", uffd_scan(pages))
            for codec in CODECS:
                took, made = frames(image, pages, codec)
                note(f"compress {codec}", took)
                note(f"decompress {codec}", opened(made, pages))
    return found


def table(found: dict[str, list[float]], memory: int) -> Table:
    """A row for each stage."""
    made = Table("stage", "GiB/s a core (median)", "ms a GiB", "repetitions, GiB/s")
    for stage, seconds in found.items():
        rates = [memory / GIB / one for one in seconds]
        row = (f"{median(rates):.2f}", f"{1000 / median(rates):.1f}")
        made.add_row(stage, *row, " ".join(f"{rate:.2f}" for rate in rates))
    return made


def main() -> int:
    """0: all were measured."""
    options = arguments()
    about = machine(None)
    with tempfile.TemporaryDirectory(prefix="pageferry-", dir="/dev/shm") as folder:
        build_image(Path(folder, "image"), options.memory)
        with Path(folder, "image").open("rb") as image:
            found = measure(options, image.fileno())
    Console(highlight=False).print(table(found, options.memory))
    figures = {"machine": about, "memory": options.memory, "seconds": found}
    write_figures(options.json, figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
