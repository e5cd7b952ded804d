"""Data frames that are right: golden vectors and round trips."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.frame_opening import decode_batch, decode_hello
from protocol.frames import (
    DELTAS,
    HEADER,
    Batch,
    CodecId,
    FrameLimits,
    PageKind,
    encode_batch,
    encode_hello,
)
from protocol.limits import PAGE_BYTES
from tests.protocol.samples import LIMITS, SESSION, make_batch

HELLO = (
    "5047465901000100 0000000000010203 0405060708090a0b 0c0d0e0f00000000 "
    "0201000000000000 0000000000000000 0000000000000000 fb728bc85507aee9"
)
PLAIN = (
    "5047465901000202 0000000000010203 0405060708090a0b 0c0d0e0f01000000 "
    "0500000000000000 0200000003000000 020000000c000000 74f8720e2c2a32f5 "
    "0300000004000000 63000000020102"
)
FULL = (
    "5047465901000202 0300000000010203 0405060708090a0b 0c0d0e0f01000000 "
    "0500000000000000 0200000003000000 020000000c000000 20fe6179f33c768b "
    "0300000004000000 6300000002010207 0000000000000008 00000000000000"
)


def test_golden_hello() -> None:
    """A change of the layout or the digest that nobody meant to make."""
    head = encode_hello(SESSION, 258)
    assert head.hex(" ", -8) == HELLO
    assert decode_hello(head, SESSION) == 258


@pytest.mark.parametrize(
    ("hashed", "digest", "golden"), [(False, False, PLAIN), (True, True, FULL)]
)
def test_golden_batch(hashed: bool, digest: bool, golden: str) -> None:
    """The same for a batch, its tables and what its digest covers."""
    batch = make_batch(hashed=hashed)
    assert encode_batch(batch, content_digest=digest).hex(" ", -8) == golden


def test_without_content_digest_the_payload_is_not_hashed() -> None:
    """Catches: `verify: off` that pays for a digest, and a full digest that misses the payload."""
    one, other = make_batch(), make_batch(payload=b"payload, too")
    assert encode_batch(one, content_digest=False) == encode_batch(other, content_digest=False)
    assert encode_batch(one, content_digest=True) != encode_batch(other, content_digest=True)


BLOCK_PAGES = (2**32 - 1, 40)
ANY = FrameLimits(SESSION, BLOCK_PAGES, 64)


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    """Any batch that the limits `ANY` let in."""
    block = draw(st.integers(0, 1))
    indices = draw(st.sets(st.integers(0, BLOCK_PAGES[block] - 1), max_size=30))
    kind = st.sampled_from(PageKind)
    kinds = np.array(draw(st.tuples(*[kind] * len(indices))), np.uint8)
    deltas = int(np.count_nonzero(kinds == PageKind.DELTA))
    data = int(np.count_nonzero(kinds == PageKind.DATA)) + deltas
    u64 = st.integers(0, 2**64 - 1)
    hashes = draw(st.none() | st.lists(u64, min_size=data, max_size=data))
    return Batch(
        SESSION,
        draw(u64),
        draw(st.integers(0, 2**32 - 1)),
        draw(st.integers(0, 2**32 - 1)),
        block,
        draw(st.sampled_from(CodecId)),
        np.array(sorted(indices), np.uint32),
        kinds,
        None if hashes is None else np.array(hashes, np.uint64),
        draw(st.binary(max_size=99)) if data else b"",
        draw(st.integers(1, deltas * PAGE_BYTES - 1)) if deltas else 0,
    )


@given(batches(), st.booleans())
def test_any_batch_comes_across(batch: Batch, content_digest: bool) -> None:
    """A field, a kind or a hash that is not what it was after the journey."""
    head = encode_batch(batch, content_digest=content_digest)
    arrived = decode_batch(memoryview(head), bytearray(batch.payload), ANY)
    for name in (field.name for field in dataclasses.fields(Batch)):
        came, went = getattr(arrived, name), getattr(batch, name)
        assert np.array_equal(came, went) if isinstance(went, np.ndarray) else came == went


def test_the_largest_batch_is_let_in() -> None:
    """Limits that are one byte short of what the source may send."""
    pages = LIMITS.batch_pages
    batch = make_batch(
        pages=np.arange(92, 100, dtype=np.uint32),
        kinds=np.full(pages, PageKind.DATA, np.uint8),
        hashes=np.zeros(pages, np.uint64),
        payload=bytes(LIMITS.payload_bytes),
    )
    head = encode_batch(batch, content_digest=True)
    assert len(head) == LIMITS.head_bytes - DELTAS.size
    assert decode_batch(head, batch.payload, LIMITS).data_pages == pages


def test_an_empty_batch_is_a_frame() -> None:
    """A job whose pages all vanished and that blocks the order for ever."""
    empty = np.array([], np.uint8)
    batch = make_batch(pages=empty.astype(np.uint32), kinds=empty, hashes=None, payload=b"")
    head = encode_batch(batch, content_digest=True)
    assert len(head) == HEADER.size
    assert len(decode_batch(head, b"", LIMITS).pages) == 0


def test_what_arrives_is_a_view() -> None:
    """A copy of every payload on the hot path."""
    batch = make_batch()
    payload = bytearray(batch.payload)
    arrived = decode_batch(encode_batch(batch, content_digest=True), payload, LIMITS)
    assert arrived.payload is payload
    assert not arrived.pages.flags.owndata
