"""The digest of everything that travels or is kept: XXH3-64 of all but the digest itself."""

import numpy as np
import xxhash
from numpy.typing import NDArray

DIGEST_BYTES = 8

Buffer = bytes | bytearray | memoryview


def digest_of(head: Buffer, at: int, *rest: Buffer) -> int:
    """XXH3-64 of `head` without the 8 bytes at offset `at`, then of each of `rest`."""
    view = memoryview(head)
    state = xxhash.xxh3_64(view[:at])
    state.update(view[at + DIGEST_BYTES :])
    for part in rest:
        state.update(part)
    return state.intdigest()


def table_digest(table: NDArray[np.uint64]) -> int:
    """XXH3-64 of a table of page hashes."""
    return xxhash.xxh3_64_intdigest(table)


def page_seed(session: bytes) -> int:
    """The seed of the page hashes of a session: a guest that could know it could make two pages
    of one hash, of which only the first would travel."""
    return int.from_bytes(session[:8], "little")
