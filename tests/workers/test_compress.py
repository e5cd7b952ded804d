"""A compress worker: one frame a job, of the bytes that were in memory, to the right lane."""

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from time import monotonic_ns

import pytest
import zmq

from protocol.errors import FrameDamaged, GuestError
from protocol.frame_opening import decode_batch
from protocol.frames import CodecId, PageKind
from protocol.limits import PAGE_BYTES
from tests.protocol.samples import flipped
from tests.workers.compressing import (
    BLOCK_PAGES,
    LIMITS,
    SESSION,
    Compressor,
    compressing,
    contents,
)
from tests.workers.driving import Context, hear, is_silent, sleeping
from tests.workers.memories import hash_of, page, random_pages, text_pages
from workers.lanes import HIGH_WATER
from workers.messages import Connect, Cut, Sent, Unsent
from workers.pages import VOID_HASH, ZERO_HASH

ZERO = bytes(PAGE_BYTES)
CONTENT = text_pages(2) + ZERO + random_pages(1) + ZERO + text_pages(3, seed=2)
"""Of block 0: pages 0 to 7, of which 2 and 4 are zero; all behind them is a hole."""

Start = Callable[..., AbstractContextManager[Compressor]]


@pytest.fixture
def start(context: Context, folder: Path) -> Start:
    """Starts a worker over `CONTENT`."""
    return partial(_started, context, folder)


@contextmanager
def _started(
    context: Context,
    folder: Path,
    *,
    codec: str = "zlib",
    hashed: bool = True,
    digest: bool = True,
    lanes: int = 1,
) -> Iterator[Compressor]:
    with compressing(
        context, folder, CONTENT, codec=codec, hashed=hashed, digest=digest, lanes=lanes
    ) as worker:
        yield worker


@pytest.mark.parametrize("codec", ["none", "zlib", "zstd", "lz4"])
@pytest.mark.parametrize("hashed", [True, False])
def test_the_pages_arrive_as_they_are(start: Start, codec: str, hashed: bool) -> None:
    """A page at another's place, a zero page as data, a hash that is not of these bytes."""
    with start(codec=codec, hashed=hashed) as worker:
        batch = worker.job(5, 0, 2, 3, 5, 6, 31)
    assert (batch.session, batch.seq, batch.attempt) == (SESSION, 5, 0)
    assert (batch.round_no, batch.block) == (7, 0)
    assert contents(batch) == {
        index: page(CONTENT, index) if index < 8 else ZERO for index in (0, 2, 3, 5, 6, 31)
    }
    data = [0, 3, 5, 6]
    assert batch.pages[batch.kinds == PageKind.DATA].tolist() == data
    if hashed:
        assert batch.hashes is not None
        assert batch.hashes.tolist() == [hash_of(page(CONTENT, index)) for index in data]
    else:
        assert batch.hashes is None


def test_the_word_that_it_is_sent_counts_what_was_sent(start: Start) -> None:
    """Statistics, a rate limit and a ratio made of numbers that are not the frame's."""
    with start() as worker:
        worker.give(9, 0, 2, 3, 5, 6, 31, attempt=1)
        sent, (head, payload) = worker.sent(), worker.frame()
    assert (sent.seq, sent.attempt) == (9, 1)
    assert (sent.zero_pages, sent.data_pages) == (2, 4)
    assert (sent.wire_bytes, sent.payload_bytes) == (len(head) + len(payload), len(payload))
    assert sent.compressed
    assert sent.hash_ns > 0
    assert sent.compress_ns > 0


def test_what_does_not_shrink_travels_raw(start: Start) -> None:
    """A sender that insists on compressing noise, and counts it as compressed."""
    with start() as worker:
        worker.give(1, 3)
        sent, batch = worker.sent(), worker.batch()
    assert (batch.codec, sent.compressed) == (CodecId.NONE, False)
    assert bytes(batch.payload) == page(CONTENT, 3)


def test_hashes_of_what_was_sent_stand_in_the_table(start: Start) -> None:
    """A tracker or a verification that compares with what was never sent."""
    with start() as worker:
        worker.job(1, 0, 2, 3)
        expected = [hash_of(page(CONTENT, 0)), VOID_HASH, ZERO_HASH, hash_of(page(CONTENT, 3))]
        assert worker.tables[0][:4].tolist() == expected
        assert not worker.tables[0][4:].any()
        assert not worker.tables[1].any()


def test_unchanged_pages_are_dropped_and_a_frame_comes_all_the_same(start: Start) -> None:
    """A seq without a frame: the receiver waits for it for ever."""
    with start() as worker:
        worker.job(1, 0, 2, 3)
        os.pwrite(worker.memory[0], b"changed", 3 * PAGE_BYTES + 100)
        changed = worker.job(2, 0, 2, 3)
        worker.give(3, 0, 2, 3)
        sent, empty = worker.sent(), worker.batch()
    assert list(contents(changed)) == [3]
    assert contents(changed)[3][100:107] == b"changed"
    assert (empty.seq, len(empty.pages), len(empty.payload)) == (3, 0, 0)
    assert (sent.zero_pages, sent.data_pages, sent.compressed) == (0, 0, False)


def test_a_page_that_became_zero_is_sent_as_zero(start: Start) -> None:
    """Bytes that stay at the destination where the guest has cleared them."""
    with start() as worker:
        worker.job(1, 0, 1)
        os.pwrite(worker.memory[0], ZERO, 0)
        batch = worker.job(2, 0, 1)
        assert worker.tables[0][0] == ZERO_HASH
    assert contents(batch) == {0: ZERO}


def test_without_a_table_every_page_is_sent(start: Start) -> None:
    """Pages left out by a comparison with nothing."""
    with start(hashed=False) as worker:
        worker.job(1, 0, 2)
        again = worker.job(2, 0, 2)
        assert not worker.tables[0].any(), "nobody asked for hashes"
    assert list(contents(again)) == [0, 2]


def test_a_page_whose_hash_is_void_is_sent(start: Start) -> None:
    """A page that was redone, and then left out because it looks as it did before."""
    with start() as worker:
        worker.job(1, 0, 1, 2)
        worker.tables[0][1] = VOID_HASH
        assert list(contents(worker.job(2, 0, 1, 2))) == [1]


def test_a_redo_sends_everything_and_voids_the_hashes(start: Start) -> None:
    """A redo that leaves out what the lost frame had; hashes of bytes that may never arrive."""
    with start() as worker:
        worker.job(1, 0, 2, 3)
        redone = worker.job(1, 0, 2, 3, attempt=1)
        assert worker.tables[0][:4].tolist() == [VOID_HASH] * 4
    assert (redone.attempt, redone.seq) == (1, 1)
    assert list(contents(redone)) == [0, 2, 3]


def test_a_redo_after_the_stop_keeps_the_hashes(start: Start) -> None:
    """A verification that fails because a frame of the last round had to be sent again."""
    with start() as worker:
        redone = worker.job(1, 0, 2, attempt=1, final=True)
        assert list(contents(redone)) == [0, 2]
        assert worker.tables[0][[0, 2]].tolist() == [hash_of(page(CONTENT, 0)), ZERO_HASH]
        assert list(contents(worker.job(2, 0, 2, final=True))) == []


@pytest.mark.parametrize("digest", [True, False])
def test_the_digest_covers_the_content_where_asked(start: Start, digest: bool) -> None:
    """Damaged content that is believed; or the price of a digest that nobody wanted."""
    with start(digest=digest) as worker:
        worker.give(1, 0, 1)
        head, payload = worker.frame()
        worker.sent()
    decode_batch(head, payload, LIMITS)
    with pytest.raises(FrameDamaged):
        decode_batch(flipped(head, 8 * len(head) - 1), payload, LIMITS)
    if digest:
        with pytest.raises(FrameDamaged):
            decode_batch(head, flipped(payload, 77), LIMITS)
    else:
        decode_batch(head, flipped(payload, 77), LIMITS)


def test_each_block_has_its_own_memory_and_hashes(start: Start) -> None:
    """The bytes of one block sent as another's."""
    with start() as worker:
        os.pwrite(worker.memory[1], random_pages(1, seed=9), 15 * PAGE_BYTES)
        worker.give(1, 0, 15, block=1)
        worker.sent()
        batch = worker.batch()
        assert contents(batch) == {0: ZERO, 15: random_pages(1, seed=9)}
        assert batch.block == 1
        assert worker.tables[1][[0, 15]].tolist() == [ZERO_HASH, hash_of(random_pages(1, seed=9))]
        assert not worker.tables[0].any()


def test_a_frame_goes_to_the_lane_that_the_job_names(start: Start) -> None:
    """All frames at one decompress worker, and the others starve."""
    with start(lanes=3) as worker:
        for seq, lane in enumerate((2, 0, 1, 2), 1):
            worker.give(seq, 0, lane=lane)
        order = [worker.sent().seq for _ in range(4)]
        seqs = [worker.batch(lane).seq for lane in (0, 1, 2, 2)]
    assert (order, seqs) == ([1, 2, 3, 4], [2, 3, 1, 4])


def test_codec_and_level_are_the_jobs(start: Start) -> None:
    """A codec or a level that is read once, when the worker starts."""
    with start(hashed=False) as worker:
        assert worker.job(1, 0, 1).codec is CodecId.ZLIB
        assert worker.job(2, 0, 1, level=0).codec is CodecId.NONE
        worker.codec = "zstd"
        assert worker.job(3, 0, 1).codec is CodecId.ZSTD


def test_a_scan_finds_what_changed_and_notes_nothing(start: Start) -> None:
    """A page that changed, was found, and is then left out because its new hash is known."""
    with start() as worker:
        worker.job(1, *range(8))
        worker.tables[0][8:] = ZERO_HASH
        assert worker.scan(0, 0, BLOCK_PAGES[0]) == []
        os.pwrite(worker.memory[0], b"x", 4 * PAGE_BYTES)
        os.pwrite(worker.memory[0], b"x", 31 * PAGE_BYTES)
        assert worker.scan(0, 0, 31) == [4]
        assert worker.scan(0, 4, 28) == [4, 31]
        assert worker.scan(1, 2, 3) == [2, 3, 4], "void entries"


def test_a_guest_whose_memory_shrank_is_named(start: Start) -> None:
    """A worker that sends what its buffer held before, or ends without a word."""
    with start() as worker:
        os.ftruncate(worker.memory[0], 4 * PAGE_BYTES)
        worker.give(1, 3, 4)
        with pytest.raises(GuestError, match="test worker 0: guest memory ends before page 4"):
            hear(worker.pool, Sent)


JOBS = 60


def test_a_full_lane_makes_the_worker_wait_without_spinning(start: Start) -> None:
    """Frames that are lost or pile up in memory where a receiver is slow; a core burnt."""
    with start(codec="none", hashed=False) as worker:
        for seq in range(1, JOBS + 1):
            worker.give(seq, *range(8))
        told = 0
        while not is_silent(worker.pool, 1000):
            told += 1
            assert worker.sent().seq == told
        assert HIGH_WATER <= told < JOBS // 2, "the queues and the kernel's buffer, no more"
        with sleeping():
            assert is_silent(worker.pool, 300)
        for seq in range(1, JOBS + 1):
            assert worker.batch().seq == seq
        for seq in range(told + 1, JOBS + 1):
            assert worker.sent().seq == seq


def test_a_link_that_lets_in_and_hangs_up_loses_no_frame(start: Start) -> None:
    """A frame that counts as sent while it waits for a connection, and is lost with each try."""
    with start(codec="none") as worker, socket.create_server(("127.0.0.1", 0)) as listener:
        host, port = listener.getsockname()
        worker.pool.send(0, Connect([f"tcp://{host}:{port}"]))
        worker.give(1, 3)
        for _ in range(3):
            listener.accept()[0].close()
        assert is_silent(worker.pool, 300)
        worker.pool.send(0, Connect([worker.lanes[0].getsockopt_string(zmq.LAST_ENDPOINT)]))
        assert hear(worker.pool, Cut).lane == 0
        assert worker.sent().seq == worker.batch().seq == 1


def test_a_frame_that_finds_no_connection_is_given_back(start: Start) -> None:
    """A worker that waits for ever where nobody answers, while other lanes are free."""
    with start(lanes=2) as worker, socket.create_server(("127.0.0.1", 0)) as listener:
        silent = "tcp://{}:{}".format(*listener.getsockname())
        there = worker.lanes[1].getsockopt_string(zmq.LAST_ENDPOINT)
        worker.pool.send(0, Connect([silent, there]))
        worker.give(1, 0)
        worker.give(2, 3, lane=1)
        unsent = hear(worker.pool, Unsent)
        assert (unsent.seq, unsent.reason) == (1, f"no connection to {silent} within 5 s")
        assert worker.sent().seq == worker.batch(1).seq == 2


def test_the_wire_limit_holds_back_and_is_told(start: Start) -> None:
    """A limit that is drawn and not waited for; waiting that counts as work."""
    with start(codec="none", hashed=False) as worker:
        worker.live.rate = 5 * PAGE_BYTES  # a frame of 2 pages takes 400 ms
        began_ns = monotonic_ns()
        for seq in (1, 2, 3):
            worker.give(seq, 0, 1)
        blocked_ms = [worker.sent().blocked_ns / 1e6 for _ in range(3)]
        elapsed_ms = (monotonic_ns() - began_ns) / 1e6
        for _ in range(3):
            worker.frame()
    assert elapsed_ms > 750, "two frames' time, less the 50 ms that were saved up"
    assert 400 < sum(blocked_ms) < elapsed_ms, "and what the worker was kept from its core for"


def test_a_connection_that_is_cut_while_the_wire_limit_holds_back_is_told(start: Start) -> None:
    """A cut that is seen when the limit lets the next frame go; a core burnt until then."""
    with start(codec="none", hashed=False) as worker:
        worker.live.rate = PAGE_BYTES // 100  # a frame of a page takes 100 s
        for seq in (1, 2):
            worker.give(seq, 0)
        assert worker.sent().seq == 1
        worker.frame()
        worker.lanes[0].close(0)
        assert hear(worker.pool, Cut).lane == 0
        with sleeping():
            assert is_silent(worker.pool, 300)
