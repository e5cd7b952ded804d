"""What the source has open while a migration runs, and the few things it can do with it.

Setup makes everything, `close` ends everything; between them rounds are started,
scanned and fenced. Reads, writes and allocates no guest page itself.
"""

import os
from collections.abc import Callable, Collection
from contextlib import ExitStack
from time import monotonic_ns

import zmq

from pipeline.config.fields import AllProcessors
from pipeline.config.model import Config, Parameters
from pipeline.control_link import ControlLink
from pipeline.guests.base import SourceGuest
from pipeline.guests.disks import LeavingDisk
from pipeline.signals import Flag
from pipeline.source.codec_choice import RAW, AutoCodec, Choice, FixedCodec
from pipeline.source.dirty import DirtyMap
from pipeline.source.dispatcher import Dispatcher
from pipeline.source.moving_disks import MovingDisks
from pipeline.source.pump import SourcePump
from pipeline.source.recovery import Recovery
from pipeline.source.scans import SCAN_PAGES
from pipeline.source.sent_tables import SentTables
from pipeline.source.staffing import Staffing
from pipeline.source.statistics import SourceStatistics
from pipeline.source.survey import hello_of, survey
from pipeline.source.tracking import Tracking
from protocol import control as c
from protocol.digest import page_seed
from protocol.errors import GuestError
from protocol.limits import PAGE_BYTES
from protocol.uri import Uri
from workers.compress import CompressSettings, compress_worker
from workers.keys import ClientKeys
from workers.link import ZMQ_DESCRIPTORS, PoolAddress
from workers.live import LiveSettings
from workers.memory import PassedFd, check_descriptors
from workers.packages import available
from workers.pages import Pages
from workers.pool import Pool

SETUP_SECONDS = 30.0
"""For the destination to make memory, guest and workers; heartbeats must come all the while."""

BASE_PAGE_SECONDS = 100e-6
"""For it to copy and to hash a page of a base: 40 MiB/s, a disk that is slow."""

SAMPLE_RANGES = 6
"""Ranges of 8 MiB that are hashed to learn how fast hashing is: some 12 ms of processor time."""


class SourceEngine:
    """The open parts of one outgoing migration; owned by the thread that made it.

    `sent` is what was last sent, in tables that it shares with the workers.
    """

    def __init__(
        self,
        config: Config,
        guest: SourceGuest,
        tracking: Tracking,
        uri: Uri,
        cancel: Flag,
        on_tick: Callable[[int], None],
        keys: ClientKeys | None = None,
        disks: list[LeavingDisk] | None = None,
    ) -> None:
        self.config = config
        self._keys = keys
        self.guest = guest
        self.tracking = tracking
        self.disks = MovingDisks(disks or [], len(guest.blocks))
        self.blocks = [*guest.blocks, *self.disks.blocks]
        self.block_pages = tuple(block.pages for block in self.blocks)
        self.statistics = SourceStatistics(sum(self.block_pages))
        self.statistics.disks.total_pages = self.disks.pages
        self.dirty = self.dirty_map()
        self.sent = SentTables(self.block_pages)
        self._cache_pages = config.parameters.xbzrle_cache_size // PAGE_BYTES
        self.session_id = os.urandom(16)
        with ExitStack() as opened:
            opened.callback(tracking.close)
            opened.callback(self.disks.close)
            parameters = config.parameters
            self._open_live(opened, parameters)
            self._open_links(opened, uri)
            self.dispatcher = Dispatcher(self.pool, self.dirty.mark, self._fixed(parameters))
            self.recovery = Recovery(self.pool, self.dispatcher, uri, monotonic_ns())
            self.pump = SourcePump(
                self.link,
                self.pool,
                self.dispatcher,
                self.recovery,
                self.statistics,
                cancel,
                on_tick,
                self.disks.first,
            )
            self._opened = opened.pop_all()

    def _open_links(self, opened: ExitStack, uri: Uri) -> None:
        """To the destination, and to workers that are still to be started."""
        check_descriptors(ZMQ_DESCRIPTORS)
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        opened.callback(context.destroy)
        self.link = ControlLink.connect(context, uri, self.session_id, self._keys)
        opened.callback(self.link.close)
        self.pool = Pool(context, "compress")
        opened.callback(self.pool.stop)

    def dirty_map(self) -> DirtyMap:
        """A map of all blocks, with nothing marked."""
        return DirtyMap(self.block_pages, self.disks.first)

    def _open_live(self, opened: ExitStack, parameters: Parameters) -> None:
        self._live_fd = LiveSettings.memory()
        opened.callback(os.close, self._live_fd)
        self.live = LiveSettings(self._live_fd)
        opened.callback(self.live.close)
        self.live.rate = parameters.max_bandwidth

    def _fixed(self, parameters: Parameters) -> FixedCodec:
        """The codec that is asked for; raw, until it is known what the destination has."""
        codec = self.config.effective_codec
        return FixedCodec(RAW if codec == "auto" else Choice(codec, parameters.compress_level))

    def set_up(self) -> None:
        """Start the workers, meet the destination, tell it what is to come."""
        self.disks.check_alone(self.guest.process)
        infos = self.disks.infos(page_seed(self.session_id), self.pump.before_anything_is_said)
        self.link.send(hello_of(self.config, self.guest, infos))
        self.pool.start(
            self._staff(self.config.parameters),
            compress_worker,
            self._worker_settings(),
            self.pump.hear_and_tick,
        )
        self.pump.watch_workers()
        bases = sum(map(len, self.disks.bases.values()))
        welcome = self.pump.expect(c.Welcome, within_s=SETUP_SECONDS + bases * BASE_PAGE_SECONDS)
        if self.config.effective_codec == "auto":
            common = {"none", *welcome.codecs}.intersection(available())
            self.dispatcher.codecs = AutoCodec(common, len(os.sched_getaffinity(0)))
        self.recovery.connect(welcome.endpoints)
        self.statistics.lanes = len(welcome.endpoints)
        self.dispatcher.open(len(welcome.endpoints), welcome.window)
        survey(self.blocks, self.disks.bases, self.dirty, self.sent, self.link.send)
        self.scan_hashes(self.dirty.mark, only=self.disks.bases)

    def _staff(self, parameters: Parameters) -> int:
        """Have as many compress workers as are wanted: how many that is now."""
        staff, wanted = self.recovery.staff, parameters.compress_threads
        if not isinstance(wanted, AllProcessors):
            staff.staffing = None
        elif staff.staffing is None:
            staff.staffing = Staffing(wanted)
        staff.wanted = staff.staffing.wanted if staff.staffing else wanted
        return staff.wanted

    def _worker_settings(self) -> Callable[[PoolAddress], CompressSettings]:
        memory = tuple(PassedFd(block.fd) for block in self.blocks)
        hashed = self.tracking.name == "hash" or self.config.verify == "full" or self.disks.blocks
        hashes = self.sent.open_hashes(self._opened) if hashed else None
        cached = self.config.capabilities.xbzrle
        cache = self.sent.open_cache(self._opened) if cached else None
        return lambda address: CompressSettings(
            address=address,
            session=self.session_id,
            batch_pages=self.config.batch_pages,
            content_digest=self.config.verify != "off",
            block_pages=self.block_pages,
            memory=memory,
            hashes=hashes,
            live=PassedFd(self._live_fd),
            keys=self._keys,
            cache=cache,
        )

    def start_round(self, sent: DirtyMap | None = None) -> None:
        """Send what is dirty now as the next round, noted in `sent`. Only after the fence."""
        pages = self.dirty.pages
        self.dispatcher.start_round(self.sent.use_cache(self._cache_pages))
        self.statistics.start_round(pages)
        self.link.send(
            c.RoundStart(round_no=self.dispatcher.round_no, first_seq=self.dispatcher.last_seq + 1)
        )
        if sent is not None:
            sent.add(self.dirty)
        self.statistics.disks.planned_pages += self.dirty.pages_from(self.disks.first)
        self.dispatcher.plan(self.dirty.take(self.config.batch_pages), pages)

    def scan(self) -> None:
        """Mark what was written since the last scan."""
        known, written = self.dirty.pages, self.disks.written()
        self.scan_hashes(self.dirty.mark, only=written if self.tracking.scans else None)
        began = monotonic_ns()
        for block, scan in self.tracking.scans.items():
            try:
                self.dirty.mark(block, scan.scan())
            except ProcessLookupError as error:
                raise GuestError(f"{self.guest.name} is gone: {error.strerror}") from None
        self.statistics.scan_ns += monotonic_ns() - began
        self.statistics.count_scan(self.dirty.pages - known, monotonic_ns())

    def scan_hashes(
        self,
        found: Callable[[int, Pages], None],
        every: int = 1,
        only: Collection[int] | None = None,
    ) -> None:
        """Compare memory with what was last sent, on all workers; hand on what differs.

        All of it, or every so many-th range; or blocks of these numbers alone. Waits first until
        every batch has left its worker: only then is the table final.
        """
        if only is not None and not only:
            return
        self.pump.wait(lambda: self.dispatcher.all_sent)
        self.pump.on_found = found
        self.dispatcher.scans.plan(self.block_pages, every, only)
        self.pump.wait(lambda: self.dispatcher.scans.all_done)

    def sample_hashing(self) -> None:
        """Find out what a pass over all hashes would take now, from a few ranges; the first time
        after a look at all, so that the pass in the downtime finds all of it mapped."""
        if self.dispatcher.round_no == 1:
            self.scan_hashes(self.dirty.mark)
            self.statistics.forget_hash_pace()
        ranges = self.statistics.total_pages // SCAN_PAGES
        self.scan_hashes(self.dirty.mark, every=max(1, ranges // SAMPLE_RANGES))

    def fence(self) -> None:
        """Wait until all of the round is applied."""
        self.pump.wait(lambda: self.dispatcher.all_applied)
        self.statistics.end_round(len(self.recovery.staff.working))

    def adjust(self, parameters: Parameters, *, lifted: bool) -> None:
        """Let level, wire limit (but while it is `lifted`) and number of workers take effect."""
        if self.config.effective_codec != "auto":
            self.dispatcher.codecs = self._fixed(parameters)
        self._staff(parameters)
        self._cache_pages = parameters.xbzrle_cache_size // PAGE_BYTES
        if not lifted:
            self.live.rate = parameters.max_bandwidth

    @property
    def pending_bytes(self) -> int:
        """Guest bytes that are dirty, or on their way and not applied."""
        return (self.dirty.pages + self.dispatcher.pages_pending) * PAGE_BYTES

    @property
    def disk_pending_bytes(self) -> int:
        """As `pending_bytes`, of disks alone."""
        disks = self.statistics.disks
        on_the_way = disks.planned_pages - disks.applied_pages
        return (self.dirty.pages_from(self.disks.first) + on_the_way) * PAGE_BYTES

    def close(self) -> None:
        """End workers, sockets and shared memory. Idempotent."""
        self._opened.close()
        self.sent.close()
