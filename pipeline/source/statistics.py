"""What the source counts while a migration runs, and the figures made of it."""

from collections import deque
from dataclasses import astuple, dataclass, field
from operator import sub
from time import monotonic_ns

from protocol.control import Applied
from protocol.limits import PAGE_BYTES
from workers.messages import Scanned, Sent

RATE_PERIOD_NS = 1_000_000_000
PACE_JOBS = 16
"""The scan jobs that tell how fast hashing is: the newest, since the cores get busy and idle."""


@dataclass(frozen=True)
class Busy:
    """Processor time of the stages so far, and how long workers waited for the wire, in ns."""

    scan: int = 0
    compress: int = 0
    send: int = 0
    decompress: int = 0
    write: int = 0

    def since(self, before: "Busy") -> "Busy":
        """What has come on top."""
        return Busy(*map(sub, astuple(self), astuple(before)))


@dataclass
class DeltaCounts:
    """What became of pages that could travel as deltas, in all and in the last round that had
    some. `looked_up` are those that are no zero pages; `bytes` those of the deltas."""

    pages: int = 0
    bytes: int = 0
    looked_up: int = 0
    missed: int = 0
    overflow: int = 0
    miss_rate: float = 0.0
    encoding_rate: float = 0.0
    _before: tuple[int, int, int, int] = (0, 0, 0, 0)

    def add(self, sent: Sent) -> None:
        """One more batch."""
        self.pages += sent.delta_pages
        self.bytes += sent.delta_bytes
        self.looked_up += sent.looked_up
        self.missed += sent.missed
        self.overflow += sent.overflow

    def end_round(self) -> None:
        """New rates, of what came in the round: misses a page, and how much smaller deltas are;
        the last ones where none came."""
        now = (self.pages, self.bytes, self.looked_up, self.missed)
        pages, size, looked_up, missed = map(sub, now, self._before)
        if looked_up:
            self.miss_rate = missed / looked_up
        if size:
            self.encoding_rate = pages * PAGE_BYTES / size
        self._before = now


@dataclass
class DiskCount:
    """Pages of disks: in all, given to rounds, and applied; bytes that these took on the wire."""

    total_pages: int = 0
    planned_pages: int = 0
    applied_pages: int = 0
    wire_bytes: int = 0


@dataclass
class RoundCount:
    """One round; pages and bytes of guest memory, bytes on the wire; `busy` of `workers`, from what
    it was `before` on."""

    round_no: int
    pages: int
    began_ns: int
    dirty_pages_rate: float
    before: Busy = Busy()
    busy: Busy = Busy()
    workers: int = 1
    zero_pages: int = 0
    data_pages: int = 0
    wire_bytes: int = 0
    ended_ns: int = 0

    def add(self, sent: Sent) -> None:
        """A frame of it left its worker."""
        self.wire_bytes += sent.wire_bytes
        self.zero_pages += sent.zero_pages
        self.data_pages += sent.data_pages


@dataclass
class SourceStatistics:
    """Counters of one migration, written by the coordinator alone; times in ns. Pages and wire
    bytes are those of memory, where nothing else is said; in rounds all count."""

    total_pages: int
    """Of all blocks, disks too."""
    disks: DiskCount = field(default_factory=DiskCount)
    lanes: int = 1
    wire_bytes: int = 0
    zero_pages: int = 0
    data_pages: int = 0
    skipped_pages: int = 0
    compressed_pages: int = 0
    compressed_bytes: int = 0
    uncompressed_bytes: int = 0
    deltas: DeltaCounts = field(default_factory=DeltaCounts)
    applied_pages: int = 0
    scan_ns: int = 0
    hash_ns: int = 0
    compress_ns: int = 0
    send_ns: int = 0
    decompress_ns: int = 0
    write_ns: int = 0
    uncompared_pages: int = 0
    dirty_pages_rate: float = 0.0
    dirty_sync_count: int = 0
    dirtied_pages: int = 0
    rounds: list[RoundCount] = field(default_factory=list)
    _scanned_ns: int = field(default_factory=monotonic_ns)
    _dirtied_before: int = 0
    _hash_pace: deque[tuple[int, int]] = field(default_factory=lambda: deque(maxlen=PACE_JOBS))

    @property
    def all_wire_bytes(self) -> int:
        """Of memory and disks."""
        return self.wire_bytes + self.disks.wire_bytes

    @property
    def all_applied_pages(self) -> int:
        """Of memory and disks."""
        return self.applied_pages + self.disks.applied_pages

    @property
    def memory_pages(self) -> int:
        """Of memory alone."""
        return self.total_pages - self.disks.total_pages

    def start_round(self, pages: int) -> None:
        """A round of `pages` pages begins."""
        number, now_ns = len(self.rounds) + 1, monotonic_ns()
        self.rounds.append(RoundCount(number, pages, now_ns, self.dirty_pages_rate, self.busy))

    def enlarge_round(self, pages: int, *, of_disk: bool = False) -> None:
        """`pages` more were found while the round was on its way."""
        self.rounds[-1].pages += pages
        self.disks.planned_pages += pages if of_disk else 0

    def count_scan(self, dirty_pages: int, now_ns: int) -> None:
        """A scan found `dirty_pages` new ones; at most once a second that is a new dirty rate."""
        self.dirty_sync_count += 1
        self.dirtied_pages += dirty_pages
        elapsed_ns = now_ns - self._scanned_ns
        if elapsed_ns >= RATE_PERIOD_NS or not self.dirty_pages_rate:
            dirtied_pages = self.dirtied_pages - self._dirtied_before
            self.dirty_pages_rate = dirtied_pages / (elapsed_ns / 1e9)
            self._scanned_ns, self._dirtied_before = now_ns, self.dirtied_pages

    def end_round(self, workers: int = 1) -> None:
        """All of the round is applied, for the first time; so many compress workers were at it."""
        current = self.rounds[-1]
        if current.ended_ns:
            return
        current.ended_ns, current.workers = monotonic_ns(), workers
        current.busy = self.busy.since(current.before)
        self.deltas.end_round()

    @property
    def busy(self) -> Busy:
        """What each stage has worked."""
        return Busy(
            scan=self.scan_ns,
            compress=self.hash_ns + self.compress_ns,
            send=self.send_ns,
            decompress=self.decompress_ns,
            write=self.write_ns,
        )

    def add_sent(self, sent: Sent, pages: int, *, of_disk: bool = False) -> None:
        """A frame of a batch of `pages` pages left its worker."""
        current = self.rounds[-1]
        current.add(sent)
        if of_disk:
            self.disks.wire_bytes += sent.wire_bytes
        else:
            self._add_memory(sent, pages)
        self.hash_ns += sent.hash_ns
        self.compress_ns += sent.compress_ns
        self.send_ns += sent.blocked_ns

    def _add_memory(self, sent: Sent, pages: int) -> None:
        self.wire_bytes += sent.wire_bytes
        self.zero_pages += sent.zero_pages
        self.data_pages += sent.data_pages
        self.skipped_pages += pages - sent.zero_pages - sent.data_pages - sent.delta_pages
        self.deltas.add(sent)
        if sent.compressed:
            self.compressed_pages += sent.data_pages + sent.delta_pages
            self.compressed_bytes += sent.payload_bytes
            self.uncompressed_bytes += sent.data_pages * PAGE_BYTES + sent.delta_bytes

    def add_scanned(self, scanned: Scanned, pages: int) -> None:
        """A scan job over `pages` pages came back."""
        self.scan_ns += scanned.busy_ns
        self._hash_pace.append((scanned.busy_ns, pages))

    def add_applied(self, applied: Applied, pages: int, disk_pages: int = 0) -> None:
        """`pages` more are in the destination's memory, and on its disks; its busy times so far."""
        self.applied_pages += pages
        self.disks.applied_pages += disk_pages
        self.decompress_ns = applied.decompress_ns
        self.write_ns = applied.write_ns
        self.uncompared_pages = applied.uncompared

    def forget_hash_pace(self) -> None:
        """What hashing took until now was for once."""
        self._hash_pace.clear()

    @property
    def hash_ns_a_page(self) -> float:
        """What comparing a page with the hash table costs a worker, holes included."""
        pages = sum(pages for _, pages in self._hash_pace)
        return sum(ns for ns, _ in self._hash_pace) / pages if pages else 0.0

    @property
    def ratio(self) -> float | None:
        """Bytes of pages that travelled, whole or as deltas, by all wire bytes; None before any."""
        pages = self.data_pages + self.deltas.pages
        return pages * PAGE_BYTES / self.wire_bytes if pages else None
