"""A decompress worker: right frames fill granted slots, wrong ones are refused by name."""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
import zmq
from zlib_ng import zlib_ng

from protocol.frames import CodecId, FrameType, encode_hello
from protocol.limits import PAGE_BYTES, PROTOCOL_VERSION
from tests.protocol.samples import flipped, forge_frame
from tests.workers.compressing import BATCH_PAGES, BLOCK_PAGES, LIMITS, Frame
from tests.workers.decompressing import (
    HELLO,
    SLOTS,
    ZERO,
    Decompressor,
    batch_of,
    decompressing,
    frame_of,
)
from tests.workers.driving import Context, is_silent, sleeping
from tests.workers.memories import hash_of, indices, page, random_pages, text_pages
from workers.decompress import DATA_HIGH_WATER
from workers.pages import ZERO_HASH

TEXT = text_pages(BATCH_PAGES)
NOISE = random_pages(BATCH_PAGES)


@pytest.fixture
def worker(context: Context, folder: Path) -> Iterator[Decompressor]:
    """A worker without grants."""
    with decompressing(context, folder) as made:
        yield made


@pytest.mark.parametrize("codec", ["none", "zlib", "zstd", "lz4"])
@pytest.mark.parametrize("digest", [True, False])
def test_a_frame_fills_the_slot_that_was_granted(
    worker: Decompressor, codec: str, digest: bool
) -> None:
    """Bytes in a slot that belongs to somebody else; a table that is not the frame's."""
    worker.grant(2)
    pages = {3: page(TEXT, 0), 4: ZERO, 9: page(TEXT, 1)}
    batch = batch_of(11, pages, codec, attempt=1)
    with worker.connected(HELLO) as lane:
        lane.send_multipart(frame_of(batch, digest=digest))
        arrived = worker.arrived()
    assert (arrived.seq, arrived.attempt, arrived.round_no, arrived.block) == (11, 1, 7, 0)
    assert (arrived.slot, arrived.pages) == (2, indices(3, 4, 9).tobytes())
    assert batch.hashes is not None
    assert (arrived.kinds, arrived.hashes) == (batch.kinds.tobytes(), batch.hashes.tobytes())
    assert arrived.busy_ns > 0
    assert worker.slot(2, 3) == TEXT[: 2 * PAGE_BYTES] + ZERO
    assert not any(any(worker.slot(other)) for other in (0, 1, 3))


def test_a_frame_without_hashes_says_so(worker: Decompressor) -> None:
    """Hashes of another frame, or none where there should be some."""
    worker.grant(0)
    with worker.connected(HELLO) as lane:
        lane.send_multipart(frame_of(replace(batch_of(1, {0: page(TEXT, 0)}), hashes=None)))
        assert worker.arrived().hashes is None


def test_an_empty_frame_arrives(worker: Decompressor) -> None:
    """A seq that never comes, since there was nothing to unpack."""
    worker.grant(1)
    with worker.connected(HELLO) as lane:
        lane.send_multipart(frame_of(batch_of(1, {})))
        arrived = worker.arrived()
    assert (arrived.seq, arrived.slot, arrived.pages, arrived.hashes) == (1, 1, b"", b"")


def test_every_grant_is_used_once(worker: Decompressor) -> None:
    """Two frames in one slot: the first one's pages become the second one's."""
    with worker.connected(HELLO) as lane:
        worker.grant(0, 3)
        worker.grant(1)
        for seq in (1, 2, 3):
            lane.send_multipart(frame_of(batch_of(seq, {0: page(NOISE, seq)})))
        slots = {arrived.seq: arrived.slot for arrived in (worker.arrived() for _ in range(3))}
    assert sorted(slots.values()) == [0, 1, 3]
    assert all(worker.slot(slot, 1) == page(NOISE, seq) for seq, slot in slots.items())


def _send_what_goes(lane: zmq.Socket[bytes], frames: int) -> int:
    """How many of `frames` frames go out until the connection has been full for a second."""
    for seq in range(1, frames + 1):
        try:
            if not lane.poll(1000, zmq.POLLOUT):
                return seq - 1
            pages = {index: page(NOISE, index) for index in range(BATCH_PAGES)}
            lane.send_multipart(frame_of(batch_of(seq, pages, "none")), zmq.NOBLOCK)
        except zmq.Again:
            return seq - 1
    return frames


def test_without_a_grant_nothing_is_read(worker: Decompressor) -> None:
    """A slow receiver that is not felt at the source: frames pile up in the worker's memory."""
    with worker.connected(HELLO) as lane:
        sent = _send_what_goes(lane, 100)
        assert DATA_HIGH_WATER <= sent < 40, "the queues and the kernel's buffer, no more"
        with sleeping():
            assert is_silent(worker.pool, 300)
        for seq in range(1, sent + 1):
            worker.grant(seq % SLOTS)
            assert worker.arrived().seq == seq
        assert is_silent(worker.pool)


STRANGE_OPENINGS = {
    "none": [],
    "another session": [encode_hello(bytes(16), 0)],
    "damaged": [flipped(HELLO, 100)],
    "a batch": [frame_of(batch_of(1, {}))[0]],
    "another version": [forge_frame(HELLO, version=PROTOCOL_VERSION + 1)],
    "nothing": [b""],
}


def test_a_damaged_hello_is_no_end(worker: Decompressor) -> None:
    """Frames that are dropped for ever, because of one bit in the hello before them."""
    worker.grant(0)
    with worker.connected(flipped(HELLO, 100)) as lane:
        lane.send_multipart(frame_of(batch_of(5, {0: page(TEXT, 0)})))
        assert worker.arrived().seq == 5


def test_a_connection_without_our_hello_is_ignored(worker: Decompressor) -> None:
    """A stranger who fills the guest's memory, takes slots, or ends a migration."""
    worker.grant(0)
    with ExitStack() as stack:
        for opening in STRANGE_OPENINGS.values():
            stranger = stack.enter_context(worker.connected(*opening))
            for seq in (1, 2):
                batch = replace(batch_of(seq, {0: page(NOISE, 0)}), session=bytes(16))
                stranger.send_multipart(frame_of(batch))
        assert is_silent(worker.pool)
        lane = stack.enter_context(worker.connected(HELLO))
        lane.send_multipart(frame_of(batch_of(5, {0: page(TEXT, 0)})))
        assert worker.arrived().seq == 5
    assert worker.slot(0, 1) == page(TEXT, 0)


GOOD = batch_of(9, {3: page(TEXT, 0), 4: ZERO, 31: page(TEXT, 1)})
HEAD, PAYLOAD = frame_of(GOOD)
TWO_PAGES = TEXT[: 2 * PAGE_BYTES]


def _forged(**changes: object) -> Frame:
    return forge_frame(HEAD, PAYLOAD, **changes), PAYLOAD


def _packed(payload: bytes) -> Frame:
    return frame_of(replace(GOOD, payload=payload))


BAD: dict[str, tuple[tuple[bytes, ...], str]] = {
    "no header": ((b"short", PAYLOAD), "damaged frame: 5 bytes"),
    "another magic": (_forged(magic=b"QEVM"), "not a pageferry frame: magic b'QEVM'"),
    "another version": (_forged(version=9), "wrong version 9 of a frame"),
    "another type": (_forged(type=FrameType.HELLO), "frame of type 1 where BATCH was expected"),
    "a second hello": ((HELLO, b""), "frame of type 1 where BATCH was expected"),
    "unknown flags": (_forged(flags=11), "unknown flags 0xb"),
    "another session": (_forged(session=bytes(16)), "belongs to another session"),
    "an unknown block": (_forged(block=2), "unknown block 2, there are 2"),
    "an unknown codec": (_forged(codec=77), "unknown codec 77"),
    "fewer bytes than declared": ((HEAD, PAYLOAD[:-1]), "damaged frame"),
    "more payload declared": (_forged(payload_bytes=2**32 - 1), "declares"),
    "more pages declared": (_forged(pages=2**32 - 1), "declares"),
    "a page outside": (
        frame_of(replace(GOOD, pages=indices(3, 4, BLOCK_PAGES[0]))),
        "page index 32 outside its block of 32 pages",
    ),
    "pages that fall": (frame_of(replace(GOOD, pages=indices(4, 3, 31))), "do not rise"),
    "a page twice": (frame_of(replace(GOOD, pages=indices(3, 3, 31))), "do not rise"),
    "too long a batch": (
        frame_of(batch_of(1, dict.fromkeys(range(BATCH_PAGES + 1), ZERO))),
        "9 pages, 8 make a batch",
    ),
    "too long a payload": (
        frame_of(replace(GOOD, payload=bytes(LIMITS.payload_bytes + 1))),
        f"frame too long: {len(HEAD)} + {LIMITS.payload_bytes + 1} bytes",
    ),
    "one part": ((HEAD,), "damaged frame: 1 parts, a batch has 2"),
    "three parts": ((HEAD, PAYLOAD, b""), "damaged frame: 3 parts, a batch has 2"),
    "what does not unpack": (_packed(b"junk"), "zlib data does not unpack"),
    "what is cut": (_packed(PAYLOAD[:-1]), "zlib data does not unpack"),
    "what has something behind it": (_packed(PAYLOAD + b"x"), "zlib data does not unpack"),
    "a page too few": (_packed(zlib_ng.compress(TWO_PAGES[1:])), "unpacks to 8191 bytes, 8192"),
    "a bomb": (_packed(zlib_ng.compress(bytes(10 << 20))), "zlib data does not unpack"),
    "raw and too short": (
        frame_of(replace(GOOD, codec=CodecId.NONE, payload=TWO_PAGES[1:])),
        "none data unpacks to 8191 bytes, 8192 expected",
    ),
}


def test_a_bad_frame_is_refused_by_name_and_the_worker_lives_on(worker: Decompressor) -> None:
    """A worker that dies of what a peer sends, believes it, or loses the slot by it."""
    with worker.connected(HELLO) as lane:
        for number, (kind, (parts, reason)) in enumerate(BAD.items()):
            worker.grant(number % SLOTS)
            lane.send_multipart(parts)
            refused = worker.refused()
            assert reason in refused.reason, kind
            assert refused.damaged == refused.reason.startswith("damaged frame"), kind
            lane.send_multipart((HEAD, PAYLOAD))
            assert worker.arrived().slot == number % SLOTS, kind
            assert worker.slot(number % SLOTS, 2) == TWO_PAGES, kind


@pytest.mark.parametrize("part", [0, 1])
def test_a_bit_that_flipped_is_damage_and_no_other_fault(worker: Decompressor, part: int) -> None:
    """A frame that could simply be sent again, and fails the migration instead."""
    worker.grant(0)
    parts = [HEAD, PAYLOAD]
    parts[part] = flipped(parts[part], 8 * len(parts[part]) - 3)
    with worker.connected(HELLO) as lane:
        lane.send_multipart(parts)
        assert worker.refused().damaged


def test_a_message_over_every_limit_cuts_the_connection_alone(worker: Decompressor) -> None:
    """A worker that takes in as much as a peer likes to send before it looks at it."""
    worker.grant(0)
    with worker.connected(HELLO) as lane, worker.connected(HELLO) as other:
        lane.send_multipart([HEAD, bytes(64 << 20)])
        assert is_silent(worker.pool, 300)
        other.send_multipart([HEAD, PAYLOAD])
        assert worker.arrived().seq == GOOD.seq


def test_reading_back_finds_what_is_not_as_it_was_sent(worker: Decompressor) -> None:
    """Memory at the destination that is wrong, and is started."""
    os.pwrite(worker.memory[0], NOISE[: 4 * PAGE_BYTES], 0)
    worker.tables[0][:] = [
        hash_of(page(NOISE, index)) if index < 3 else ZERO_HASH for index in range(BLOCK_PAGES[0])
    ]
    worker.tables[1][:] = ZERO_HASH
    os.pwrite(worker.memory[0], b"x", 1 * PAGE_BYTES)
    worker.read_back(5, 0, *range(BLOCK_PAGES[0]))
    assert worker.checked() == (5, [1, 3]), "one byte changed; data where a hole should be"
    worker.read_back(6, 0, 0, 2, 31)
    assert worker.checked() == (6, [])
    worker.read_back(7, 1, 0, 15)
    assert worker.checked() == (7, [])


def test_reading_back_needs_no_grant(worker: Decompressor) -> None:
    """A verification that waits for frames that will not come; frames that end with it."""
    worker.tables[0][:] = ZERO_HASH
    with worker.connected(HELLO) as lane:
        lane.send_multipart([HEAD, PAYLOAD])
        worker.read_back(1, 0, 0)
        worker.read_back(2, 0, 1)
        assert [worker.checked()[0], worker.checked()[0]] == [1, 2]
        worker.grant(0)
        assert worker.arrived().seq == GOOD.seq
