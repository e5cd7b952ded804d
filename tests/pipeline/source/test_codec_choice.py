"""What `codec: auto` takes, on links and cores that are arithmetic."""

from collections import Counter, deque

import pytest

from pipeline.source.codec_choice import CANDIDATES, RAW, AutoCodec, Choice, Totals
from pipeline.source.statistics import Busy
from protocol.limits import PAGE_BYTES
from workers.messages import Sent

MIB = 1 << 20
PAGES = 128
BATCH_BYTES = PAGES * PAGE_BYTES
ALL = ("none", "lz4", "zstd", "zlib")
COPY_NS = 0.1
"""A byte, for what each batch costs besides."""
Shrinks = dict[Choice, tuple[float, float]]
SHRINKS: Shrinks = {
    RAW: (1.0, 0.0),
    Choice("lz4", 1): (1.97, 1e9 / (419 * MIB)),
    Choice("zstd", 1): (2.41, 1e9 / (362 * MIB)),
    Choice("zstd", 3): (2.58, 1e9 / (247 * MIB)),
    Choice("zstd", 7): (2.69, 1e9 / (68 * MIB)),
    Choice("zlib", 1): (2.08, 1e9 / (147 * MIB)),
}
"""Ratio and ns a byte, as measured."""
NOTHING_SHRINKS = {choice: (1.0, ns) for choice, (_, ns) in SHRINKS.items()}


class Machine:
    """Two cores that pack, a link, and a destination that writes; what is slowest limits."""

    def __init__(self, auto: AutoCodec, link: float, write_rate: float = 2e9) -> None:
        self.auto = auto
        self.link = link
        self.write_rate = write_rate
        self.now_ns = 1.0
        self.totals = Totals()
        self.out: deque[tuple[int, int]] = deque()
        self.taken: Counter[Choice] = Counter()

    def move(self, mib: int, *shrinks: Shrinks) -> float:
        """Seconds for so much of blocks that shrink so, in turn, with 16 batches out."""
        began, blocks = self.now_ns, shrinks or (SHRINKS,)
        for number in range(mib * MIB // BATCH_BYTES):
            block = number % len(blocks)
            choice = self.auto.choose(block)
            self.taken[choice] += 1
            ratio, ns_a_byte = blocks[block][choice]
            wire, packing = int(BATCH_BYTES / ratio), int(ns_a_byte * BATCH_BYTES)
            sent = Sent(number, 0, 0, PAGES, wire, wire, ratio > 1, 0, packing, 0)
            self.auto.heard(block, choice, sent)
            self.out.append((wire, packing + int(COPY_NS * BATCH_BYTES)))
            if len(self.out) == 16:
                self._arrive()
        return (self.now_ns - began) / 1e9

    def _arrive(self) -> None:
        wire, packing = self.out.popleft()
        writing = BATCH_BYTES / self.write_rate * 1e9
        self.now_ns += max(packing / 2, wire / self.link * 1e9, writing)
        self.totals = Totals(
            self.totals.applied_bytes + BATCH_BYTES,
            self.totals.wire_bytes + wire,
            Busy(
                compress=self.totals.busy.compress + packing,
                write=self.totals.busy.write + int(writing),
            ),
            workers=2,
        )
        self.auto.tick(int(self.now_ns), self.totals)


def machine(link: float, write_rate: float = 2e9, available: tuple[str, ...] = ALL) -> Machine:
    """One that has just begun."""
    return Machine(AutoCodec(available, 2), link, write_rate)


def best_fixed(link: float, mib: int, write_rate: float = 2e9) -> float:
    """Seconds by the best of all candidates, taken from the first batch on."""
    size = mib * MIB
    return min(
        max(size * (ns + COPY_NS) / 2e9, size / ratio / link, size / write_rate)
        for ratio, ns in SHRINKS.values()
    )


@pytest.mark.parametrize(
    ("mbit", "within"), [(10, 1.1), (50, 1.1), (200, 1.1), (1_000, 1.1), (2_500, 1.15)]
)
def test_near_the_best_fixed_codec_on_a_link_that_limits(mbit: int, within: float) -> None:
    """A link that is used for what would have shrunk."""
    link = mbit * 1e6 / 8
    assert machine(link).move(2048) < best_fixed(link, 2048) * within


@pytest.mark.parametrize("write_rate", [0.5e9, 1e9, 3e9])
def test_raw_where_the_link_does_not_limit(write_rate: float) -> None:
    """Cores that pack what would have been there sooner without."""
    fast = machine(50e9, write_rate)
    assert fast.move(2048) < best_fixed(50e9, 2048, write_rate) * 1.02


def test_a_destination_that_is_slow_is_not_taken_for_a_link() -> None:
    """Packing for ever, because nobody is seen to be busy: what arrives has to be more by it."""
    hidden = machine(50e9)
    hidden.move(64)

    def arrive() -> None:
        hidden.out.popleft()
        hidden.now_ns += 5e6
        before = hidden.totals
        hidden.totals = Totals(
            before.applied_bytes + BATCH_BYTES,
            before.wire_bytes + BATCH_BYTES,
            Busy(compress=before.busy.compress + 1, write=before.busy.write + 1),
        )
        hidden.auto.tick(int(hidden.now_ns), hidden.totals)

    hidden._arrive = arrive  # type: ignore[method-assign]
    hidden.taken.clear()
    hidden.move(4096)
    assert hidden.taken[RAW] > 0.9 * hidden.taken.total()


def test_what_does_not_shrink_is_sent_raw_beside_what_does() -> None:
    """Cores that are busy with a block of which every byte travels anyway."""
    slow = machine(25e6)
    slow.move(512, SHRINKS, NOTHING_SHRINKS)
    assert slow.taken[RAW] > 0.4 * slow.taken.total()
    assert slow.taken[Choice("zstd", 3)] + slow.taken[Choice("zstd", 7)] > 0.3 * slow.taken.total()


def test_a_link_that_becomes_faster_is_noticed() -> None:
    """Packing by what the link was like at the beginning."""
    link = machine(25e6)
    link.move(256)
    link.link = 50e9
    link.move(1024)
    link.taken.clear()
    link.move(1024)
    assert link.taken[RAW] > 0.95 * link.taken.total()


def test_only_what_both_ends_have() -> None:
    """A frame that the destination cannot unpack."""
    plain = machine(25e6, available=("none", "zlib"))
    plain.move(256)
    assert set(plain.taken) == {RAW, Choice("zlib", 1)}


def test_a_rest_says_nothing_of_the_link() -> None:
    """A guest that writes little taken for a link that is slow."""
    auto = AutoCodec(ALL, 2)
    for second in range(1, 20):
        now_ns = second * 1_000_000_000
        auto.tick(now_ns, Totals(second * MIB, second * MIB))
        auto.rest()
    assert auto.choose(0) == RAW


def test_candidates_begin_raw() -> None:
    """Nothing to send what does not shrink by."""
    assert CANDIDATES[0] == RAW
