"""Deltas: applied to the old page they give the new one, whatever the two are."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol import xbzrle
from protocol.errors import RemoteProtocolError
from protocol.limits import PAGE_BYTES

ZERO = bytes(PAGE_BYTES)


def words(*pages: bytes) -> xbzrle.Words:
    """Pages as the codec takes them, a copy."""
    return np.frombuffer(b"".join(pages), np.uint64).reshape(len(pages), xbzrle.WORDS).copy()


def round_trip(old: xbzrle.Words, new: xbzrle.Words) -> int:
    """Encode all pages that differ, apply, compare; the bytes of the section."""
    runs = xbzrle.differences(old, new)
    sizes = xbzrle.sizes(runs, len(new))
    chosen = sizes > 0
    assert chosen.tolist() == [bool(np.any(a != b)) for a, b in zip(old, new, strict=True)]
    section = xbzrle.encode(runs, new, chosen)
    assert len(section) == sizes.sum()
    applied = old[chosen]
    for _ in range(2):  # once more changes nothing
        xbzrle.apply(section, applied)
        assert np.array_equal(applied, new[chosen])
    return len(section)


changes = st.lists(st.tuples(st.integers(0, PAGE_BYTES - 1), st.binary(min_size=1, max_size=40)))


@settings(deadline=None, max_examples=200)
@given(pages=st.lists(changes, min_size=1, max_size=5), seed=st.integers(0, 9))
def test_any_change_comes_out_as_it_went_in(
    pages: list[list[tuple[int, bytes]]], seed: int
) -> None:
    """A run cut or joined wrongly: bytes of one page in another."""
    random = np.random.default_rng(seed)
    old = words(*(random.bytes(PAGE_BYTES) for _ in pages))
    new = old.copy()
    flat = new.view(np.uint8)
    for page, edits in enumerate(pages):
        for at, data in edits:
            flat[page, at : at + len(data)] = np.frombuffer(data[: PAGE_BYTES - at], np.uint8)
    round_trip(old, new)


@pytest.mark.parametrize("at", [0, 7, 8, PAGE_BYTES // 2, PAGE_BYTES - 8, PAGE_BYTES - 1])
def test_one_byte_is_one_word(at: int) -> None:
    """The first or the last word of a page, which have a neighbour in another page."""
    changed = ZERO[:at] + b"\1" + ZERO[at + 1 :]
    size = xbzrle.WORD_BYTES + xbzrle.RUN_BYTES + xbzrle.COUNT_BYTES
    assert round_trip(words(ZERO, ZERO, ZERO), words(ZERO, changed, ZERO)) == size
    assert round_trip(words(ZERO, ZERO), words(changed, changed)) == 2 * size


def test_equal_pages_have_no_delta_and_different_ones_a_larger() -> None:
    """A page sent for nothing; a delta that costs more than its page, and is called smaller."""
    assert round_trip(words(ZERO, ZERO), words(ZERO, ZERO)) == 0
    assert round_trip(words(ZERO), words(b"\1" * PAGE_BYTES)) > PAGE_BYTES


SECTION = xbzrle.encode(
    xbzrle.differences(words(ZERO), words(b"\1" * 8 + bytes(8) + b"\2" * 16 + ZERO[32:])),
    words(b"\1" * 8 + bytes(8) + b"\2" * 16 + ZERO[32:]),
    np.ones(1, np.bool_),
)
"""Words 0, 2 and 3 of one page: three words, two starts, two lengths, a count."""


def patched(at: int, value: int) -> bytes:
    """The section with another 16-bit number at `at`."""
    return SECTION[:at] + value.to_bytes(2, "little") + SECTION[at + 2 :]


JUNK = {
    "nothing": b"",
    "a byte": b"\0",
    "a byte less": SECTION[1:],
    "a word less": SECTION[8:],
    "a word more": bytes(8) + SECTION,
    "more runs than there are": patched(32, 3),
    "no run": patched(32, 0),
    "runs beyond all memory": patched(32, 0xFFFF),
    "a run that ends behind the page": patched(26, 511),
    "a run from far behind it": patched(26, 0xFFFF),
    "a run of nothing": patched(28, 0),
    "a run that begins in the one before": patched(24, 2),
}


@pytest.mark.parametrize("junk", JUNK.values(), ids=JUNK)
def test_junk_changes_nothing(junk: bytes) -> None:
    """A write outside the page, or half a delta applied."""
    assert len(SECTION) == 34
    page = words(ZERO)
    with pytest.raises(RemoteProtocolError):
        xbzrle.apply(junk, page)
    assert not page.any()


@settings(deadline=None, max_examples=300)
@given(junk=st.binary(max_size=200), pages=st.integers(0, 4))
def test_arbitrary_bytes_stay_in_their_pages(junk: bytes, pages: int) -> None:
    """An error that is none of the peer's, or a write beside the pages."""
    guarded = np.zeros((pages + 2, xbzrle.WORDS), np.uint64)
    try:
        xbzrle.apply(junk, guarded[1:-1])
    except RemoteProtocolError:
        assert not guarded.any()
    assert not guarded[[0, -1]].any()
