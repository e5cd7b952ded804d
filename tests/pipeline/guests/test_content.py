"""Page contents: the same from the same seed, compressible as described, no two alike."""

import zlib

import numpy as np
import pytest
import xxhash

from pipeline.guests.content import PAGE_WORDS, Content, ContentKind, Words


def made(kind: ContentKind, seed: int = 1, first_page: int = 0, pages: int = 1024) -> Words:
    out = np.empty((pages, PAGE_WORDS), np.uint64)
    Content(kind, seed).fill(first_page, out)
    return out


def test_a_page_depends_on_kind_seed_and_number_alone() -> None:
    """Pages that depend on the piece they were made in: the self-check would find ghosts."""
    whole = made("mixed")
    assert (made("mixed", first_page=100, pages=50) == whole[100:150]).all()
    assert (made("mixed", seed=2) != whole).any(axis=1).mean() > 0.8


def test_content_is_the_same_in_every_release() -> None:
    """A change to the content: a guest saved before would not pass its self-check after."""
    assert xxhash.xxh3_64_hexdigest(made("mixed", pages=300).data) == "f26ec064f67d586f"


def test_the_mix_has_its_shares() -> None:
    """A mix without zero pages, or of nothing else: benchmarks would measure another memory."""
    pages = made("mixed", pages=8192)
    zero = ~pages.any(axis=1)
    assert 0.28 < zero.mean() < 0.32
    assert not made("zero").any()


@pytest.mark.parametrize("kind", ["text", "pointer", "mixed"])
def test_content_compresses_two_to_three_times(kind: ContentKind) -> None:
    """Content that is far from a real guest's: every ratio shown would mislead."""
    pages = made(kind)
    pages = pages[pages.any(axis=1)]
    packed = sum(len(zlib.compress(pages[at : at + 64].data, 1)) for at in range(0, len(pages), 64))
    assert 1.9 < pages.nbytes / packed < 3.1


def test_random_content_does_not_compress() -> None:
    """Pool pages that come again unchanged: a long window would find them."""
    data = made("random").tobytes()
    assert len(zlib.compress(data, 1)) > 0.99 * len(data)


@pytest.mark.parametrize("kind", ["text", "pointer", "random"])
def test_no_two_pages_are_alike(kind: ContentKind) -> None:
    """Equal pages: a page that landed in another's place would go unseen."""
    assert len(np.unique(made(kind, pages=4096), axis=0)) == 4096
