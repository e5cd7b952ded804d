"""A compress worker: pages in, frames out.

Copies a batch out of the guest's memory first; zero test, hash and compression then
all see the same bytes, whatever the guest writes meanwhile. Exactly one frame a job,
possibly empty, straight to the decompress worker that the job names.
"""

from dataclasses import dataclass
from time import monotonic_ns, thread_time_ns

import numpy as np
import zmq
from numpy.typing import NDArray

from protocol.digest import Buffer, page_seed
from protocol.frames import DATA, DELTA, ZERO, Batch, encode_batch
from workers.codecs import compress
from workers.keys import ClientKeys
from workers.lanes import Lanes, Unreachable
from workers.link import PoolAddress, PoolLink, work
from workers.live import LiveSettings
from workers.memory import PassedFd, maybe_page_hashes
from workers.messages import ScanJob, Scanned, SendJob, Sent, Stop, Unsent, Up
from workers.pages import VOID_HASH, Hashes, PageBuffer, Pages, TableHasher, differing, entries
from workers.sent_cache import Found, SentCache

LOOK_MS = 100
"""How often a worker that waits looks whether the wire limit has changed, or its link is up."""


@dataclass(frozen=True)
class CompressSettings:
    """What a compress worker is started with. Descriptors are duplicates of its own.

    `hashes` is the table of what was last sent, 8 bytes a page, or None when neither
    tracker nor verification needs it; `cache` that of what it was, or None without xbzrle.
    """

    address: PoolAddress
    session: bytes
    batch_pages: int
    content_digest: bool
    block_pages: tuple[int, ...]
    memory: tuple[PassedFd, ...]
    hashes: PassedFd | None
    live: PassedFd
    keys: ClientKeys | None = None
    cache: PassedFd | None = None


def compress_worker(settings: CompressSettings) -> None:
    """The body of a compress worker process."""
    work(settings.address, lambda context, link: CompressWorker(settings, context, link).run())


class CompressWorker:
    """One compress worker; all of it belongs to its only thread."""

    def __init__(
        self,
        settings: CompressSettings,
        context: zmq.Context[zmq.Socket[bytes]],
        link: PoolLink,
    ) -> None:
        self._settings = settings
        self._link = link
        self._live = LiveSettings(settings.live.fd)
        seed = page_seed(settings.session)
        self._buffer = PageBuffer(settings.batch_pages, seed=seed)
        self._hasher = TableHasher(seed)
        worker = settings.address.worker
        self._lanes = Lanes(context, link, settings.session, worker, settings.keys)
        self._tables = maybe_page_hashes(settings.hashes, settings.block_pages)
        self._cache = None
        if settings.cache is not None:
            self._cache = SentCache(settings.cache.fd, settings.block_pages)

    def run(self) -> None:
        """Do what the pool asks until it says stop."""
        self._link.send(Up(""))
        while True:
            self._lanes.mend(self._link.wait_for_message())
            match self._link.maybe_receive():
                case SendJob() as job:
                    self._send(job)
                case ScanJob() as job:
                    self._scan(job)
                case Stop():
                    return
                case None:
                    pass
                case message:
                    raise TypeError(f"not for a compress worker: {message}")

    def _scan(self, job: ScanJob) -> None:
        began = thread_time_ns()
        assert self._tables is not None, "a scan by hash needs the table"
        fd = self._settings.memory[job.block].fd
        pages = np.arange(job.first, job.first + job.count, dtype=np.uint32)
        changed = self._hasher.differing(fd, pages, self._tables[job.block])
        self._link.send(Scanned(job.job, changed.tobytes(), thread_time_ns() - began))

    def _send(self, job: SendJob) -> None:
        began = thread_time_ns()
        pages = np.frombuffer(job.pages, np.uint32)
        self._buffer.read(self._settings.memory[job.block].fd, pages)
        nonzero = self._buffer.nonzero(len(pages))
        wanted, hashes = np.ones(len(pages), np.bool_), None
        if self._tables is not None:
            hashes = self._buffer.hashes(len(pages))
            wanted = self._note(job, pages, hashes)
        hashed = thread_time_ns()
        found = self._look_up(job, pages, nonzero, wanted)
        batch = self._batch(job, pages, nonzero, wanted & ~found.unchanged, found, hashes)
        head = encode_batch(batch, content_digest=self._settings.content_digest)
        compressed = thread_time_ns()
        try:
            blocked_ns = self._transmit(job.lane, head, batch.payload)
        except Unreachable as error:
            self._link.send(Unsent(job.seq, job.attempt, str(error)))
            return
        times = (hashed - began, compressed - hashed, blocked_ns)
        self._link.send_soon(_report(batch, found, len(head), times))

    def _note(self, job: SendJob, pages: Pages, hashes: Hashes) -> NDArray[np.bool_]:
        """Write what is sent now into the table; which pages are worth sending."""
        assert self._tables is not None
        table = self._tables[job.block]
        redone = job.attempt > 0
        wanted = (
            np.ones(len(pages), np.bool_) if redone else differing(hashes, entries(table, pages))
        )
        table[pages] = hashes if job.final or not redone else VOID_HASH
        return wanted

    def _look_up(
        self, job: SendJob, pages: Pages, nonzero: NDArray[np.bool_], wanted: NDArray[np.bool_]
    ) -> Found:
        """What can travel as deltas, in no first round and no redo; what is sent now is kept for
        the next round, if there is one."""
        found, cache, slots = Found.nothing(len(pages)), self._cache, job.cache_slots
        if cache is None:
            return found
        if job.attempt:
            cache.void(slots, job.block, pages)
            return found
        words = self._buffer.words[: len(pages)]
        if job.round_no > 1:
            found = cache.look_up(slots, job.block, pages, words, nonzero & wanted)
        if not job.final:
            cache.keep(slots, job.round_no, job.block, pages, words, nonzero)
        return found

    def _batch(
        self,
        job: SendJob,
        pages: Pages,
        nonzero: NDArray[np.bool_],
        travels: NDArray[np.bool_],
        found: Found,
        hashes: Hashes | None,
    ) -> Batch:
        kinds = np.where(nonzero, DATA, ZERO)
        kinds[found.deltas] = DELTA
        unpacked: Buffer = self._buffer.gather(travels & (kinds == DATA))
        if found.section:
            unpacked = b"".join((unpacked, found.section))
        codec, payload = compress(job.codec, unpacked, job.level)
        return Batch(
            session=self._settings.session,
            seq=job.seq,
            attempt=job.attempt,
            round_no=job.round_no,
            block=job.block,
            codec=codec,
            pages=pages[travels],
            kinds=kinds[travels],
            hashes=None if hashes is None else hashes[travels & nonzero],
            payload=payload,
            delta_bytes=len(found.section),
        )

    def _transmit(self, lane: int, head: bytes, payload: Buffer) -> int:
        """Send one frame when the wire limit and the link let it; how long that took, in ns.

        Unreachable where there is no link.
        """
        began = monotonic_ns()
        self._wait_for_limit(len(head) + len(payload), began)
        while not self._lanes.try_send(lane, [head, payload]):
            way = (self._lanes.socket(lane), zmq.POLLOUT)
            self._lanes.mend(self._link.wait(way, timeout_ms=LOOK_MS))
        return monotonic_ns() - began

    def _wait_for_limit(self, frame_bytes: int, now_ns: int) -> None:
        """Wait as long as the wire limit says; where that changes, as long as the new one says."""
        rate = self._live.rate
        leaves_ns = now_ns + self._live.draw(frame_bytes, now_ns)
        while (left_ns := leaves_ns - monotonic_ns()) > 0:
            self._lanes.mend(self._link.wait(timeout_ms=min(-(-left_ns // 1_000_000), LOOK_MS)))
            if rate != self._live.rate:
                leaves_ns = self._live.moved(leaves_ns, rate, monotonic_ns())
                rate = self._live.rate


def _report(batch: Batch, found: Found, head_bytes: int, times: tuple[int, int, int]) -> Sent:
    """`times`: hashing, compressing, waiting for the wire."""
    hash_ns, compress_ns, blocked_ns = times
    return Sent(
        seq=batch.seq,
        attempt=batch.attempt,
        zero_pages=len(batch.pages) - batch.data_pages - batch.delta_pages,
        data_pages=batch.data_pages,
        wire_bytes=head_bytes + len(batch.payload),
        payload_bytes=len(batch.payload),
        compressed=len(batch.payload) < batch.unpacked_bytes,
        hash_ns=hash_ns,
        compress_ns=compress_ns,
        blocked_ns=blocked_ns,
        delta_pages=batch.delta_pages,
        delta_bytes=batch.delta_bytes,
        looked_up=found.looked_up,
        missed=found.missed,
        overflow=found.overflow,
    )
