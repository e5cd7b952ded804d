"""Which codec the next batch gets: the one that was asked for, or, with `auto`, what suits best.

Pure: time is an argument. `auto` sends raw until the link is what all wait for. From then on each
batch gets the candidate by which most guest memory would arrive, min(cores / cost, link * ratio);
cost and ratio are those of recent batches of its block. That it was the link is proved by what
arrives afterwards; where it is not more, raw it is again, for longer each time.
"""

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, field
from math import inf, isinf
from typing import NamedTuple, Protocol

from pipeline.source.statistics import Busy
from protocol.control import CodecName
from protocol.limits import PAGE_BYTES, WINDOW_BYTES
from workers.messages import Sent

EPOCH_NS = 100_000_000
LATE_NS = 250_000_000
EPOCH_BYTES = WINDOW_BYTES
"""Of guest memory, a window full: an epoch lasts until so much has arrived, or, where nothing is to
be proved by that, it is late."""
WORKING = 0.5
LANDING = 0.25
"""Of raw pages: a larger share of compress workers, or of the destination, that is busy limits, and
no link does. Where cores limit raw pages, the destination writes for 0.4."""
SATURATED = 0.85
"""As much of compress workers that pack: they are busy where the link limits, too."""
GAIN = 1.1
"""What arrives has to be that much more, or it was not the link."""
GROWTH = 1.25
"""Of the link in an epoch in which it did not limit: it may have become faster."""
MOST_EPOCHS = 64
SAMPLE_EVERY = 32
"""Batches of a block, of which one tries the next candidate: 3 % of them."""
NEWEST = 0.3


class Choice(NamedTuple):
    """A codec and its level."""

    codec: CodecName
    level: int


RAW = Choice("none", 0)
CANDIDATES = (
    RAW,
    Choice("lz4", 1),
    Choice("zstd", 1),
    Choice("zstd", 3),
    Choice("zstd", 7),
    Choice("zlib", 1),
)
"""By 512 KiB of the benchmark's pages, MiB/s a core and ratio: lz4 419 and 1.97, zstd 362 and 2.41,
247 and 2.58, 68 and 2.69, zlib-ng 147 and 2.08; what lies between (zstd 2, 5) gains 2 % at most."""


@dataclass(frozen=True)
class Totals:
    """Of one migration so far: bytes that are applied, of the guest and on the wire; what each
    stage has worked, by so many compress `workers` and decompress workers (`lanes`)."""

    applied_bytes: int = 0
    wire_bytes: int = 0
    busy: Busy = field(default_factory=Busy)
    workers: int = 1
    lanes: int = 1


class Codecs(Protocol):
    """What the dispatcher asks for each batch, and tells of each frame and as time goes by."""

    def choose(self, block: int) -> Choice:
        """For the next batch of a block."""

    def heard(self, block: int, choice: Choice, sent: Sent) -> None:
        """What became of it."""

    def tick(self, now_ns: int, totals: Totals) -> None:
        """How far all is."""

    def rest(self) -> None:
        """Nothing waits to be sent: what is measured meanwhile says nothing."""


class FixedCodec:
    """The one that was asked for."""

    def __init__(self, choice: Choice) -> None:
        self.choice = choice

    def choose(self, _: int) -> Choice:
        """The one that was asked for, whatever the block."""
        return self.choice

    def heard(self, block: int, choice: Choice, sent: Sent) -> None:
        """It changes nothing."""

    def tick(self, now_ns: int, totals: Totals) -> None:
        """It changes nothing."""

    def rest(self) -> None:
        """It changes nothing."""


@dataclass
class Recent:
    """What a candidate did to recent batches of a block."""

    ratio: float = 0.0
    ns_a_byte: float = 0.0

    def add(self, sent: Sent) -> None:
        """One more batch."""
        data_bytes = sent.data_pages * PAGE_BYTES + sent.delta_bytes
        weight = NEWEST if self.ratio else 1.0
        self.ratio += weight * (data_bytes / sent.payload_bytes - self.ratio)
        self.ns_a_byte += weight * (sent.compress_ns / data_bytes - self.ns_a_byte)


@dataclass
class Block:
    """What is known of a block; what was tried once and is still on its way has no ratio."""

    tried: dict[Choice, Recent] = field(default_factory=dict)
    given: int = 0


class AutoCodec:
    """`available` are the codecs that both ends have, none among them; `cores` what workers run
    on."""

    def __init__(self, available: Collection[str], cores: int) -> None:
        self._candidates = [one for one in CANDIDATES if one.codec in available]
        self._cores = cores
        self._blocks: dict[int, Block] = defaultdict(Block)
        self._began_ns = 0
        self._before = Totals()
        self._link = inf
        self._rate = 0.0
        """What arrived, in bytes of guest memory a second, before the link was taken to limit."""
        self._settling = self._proving = False
        self._hold = 0
        self._patience = 1

    def choose(self, block: int) -> Choice:
        """Raw, where the link does not limit; what is not known yet; or the best."""
        if isinf(self._link):
            return RAW
        known = self._blocks[block]
        known.given += 1
        for candidate in self._candidates:
            if candidate not in known.tried:
                known.tried[candidate] = Recent()
                return candidate
        turn, rest = divmod(known.given, SAMPLE_EVERY)
        if not rest:
            return self._candidates[turn % len(self._candidates)]
        return max(known.tried, key=lambda one: self._predicted(known.tried[one]))

    def _predicted(self, recent: Recent) -> float:
        """Bytes a second, before compression; 0 where nothing is known yet."""
        working = self._cores * 1e9 / recent.ns_a_byte if recent.ns_a_byte else inf
        return min(working, self._link * recent.ratio)

    def heard(self, block: int, choice: Choice, sent: Sent) -> None:
        """Remember how it shrank, and what that cost."""
        if sent.payload_bytes:
            self._blocks[block].tried.setdefault(choice, Recent()).add(sent)

    def rest(self) -> None:
        """Begin a new epoch when there is something to send again."""
        self._began_ns = 0

    def tick(self, now_ns: int, totals: Totals) -> None:
        """At the end of an epoch: does the link limit, and did it help to take it into account?"""
        if not self._began_ns:
            self._began_ns, self._before = now_ns, totals
        elapsed_ns = now_ns - self._began_ns
        applied = totals.applied_bytes - self._before.applied_bytes
        late = elapsed_ns > LATE_NS and not self._proving
        if elapsed_ns < EPOCH_NS or (applied < EPOCH_BYTES and not late):
            return
        limits = self._link_limits(totals, elapsed_ns)
        wire_rate = (totals.wire_bytes - self._before.wire_bytes) * 1e9 / elapsed_ns
        self._began_ns, self._before = now_ns, totals
        self._end_epoch(applied * 1e9 / elapsed_ns, wire_rate, limits=limits)

    def _link_limits(self, totals: Totals, elapsed_ns: int) -> bool:
        """Whether what is between the ends is what all wait for, since the ends do."""
        busy = totals.busy.since(self._before.busy)
        compress = busy.compress / elapsed_ns / totals.workers
        if not isinf(self._link):
            return compress < SATURATED
        landing = max(busy.decompress / totals.lanes, busy.write) / elapsed_ns
        return compress < WORKING and landing < LANDING

    def _end_epoch(self, rate: float, wire_rate: float, *, limits: bool) -> None:
        if isinf(self._link):
            self._maybe_believe(rate, wire_rate, limits=limits)
        elif self._settling:  # what was out when the choice changed has arrived by now
            self._settling = False
        elif self._proving and rate < self._rate * GAIN:
            self._give_up()
        else:
            self._proving, self._patience = False, 1
            self._link = wire_rate if limits else self._link * GROWTH
            if self._prefers_raw():
                self._give_up()

    def _maybe_believe(self, rate: float, wire_rate: float, *, limits: bool) -> None:
        self._hold = max(0, self._hold - 1)
        if limits and wire_rate and not self._hold:
            self._link, self._rate = wire_rate, rate
            self._settling = self._proving = True

    def _give_up(self) -> None:
        """The link does not limit, or nothing shrinks: raw, and not to be asked for a while."""
        self._link, self._proving = inf, False
        self._hold, self._patience = self._patience, min(2 * self._patience, MOST_EPOCHS)

    def _prefers_raw(self) -> bool:
        """Whether raw is best for each block, so that nothing would be lost by it."""
        return all(
            max(block.tried, key=lambda one: self._predicted(block.tried[one])) == RAW
            for block in self._blocks.values()
            if block.tried
        )
