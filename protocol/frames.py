"""Data frames: what a compress worker sends to a decompress worker.

A frame is two parts: the *head* (a fixed header and the page tables) and the
*payload* (the data pages, one after the other, compressed as one piece). How one is
opened is in protocol/frame_opening.py, the layout in docs/wire-format.md.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from protocol.digest import DIGEST_BYTES, Buffer, digest_of
from protocol.limits import PAGE_BYTES, PROTOCOL_VERSION, WINDOW_BYTES

MAGIC = b"PGFY"
HEADER = struct.Struct("<4sHBBHH16sIQIIIIQ")
"""magic, version, type, codec, flags, block, session, attempt, seq, round, pages,
data pages, payload bytes, digest."""

DIGEST_OFFSET = HEADER.size - DIGEST_BYTES
TABLE_BYTES_A_PAGE = 4 + 1
HASH_BYTES = 8
INDEX, HASH = np.dtype("<u4"), np.dtype("<u8")


class FrameType(IntEnum):
    """What a data frame is; zero is invalid, so that a zeroed buffer means nothing."""

    HELLO = 1
    BATCH = 2


class CodecId(IntEnum):
    """How the payload is compressed."""

    NONE = 1
    ZLIB = 2
    ZSTD = 3
    LZ4 = 4


class PageKind(IntEnum):
    """How one page of a batch travels."""

    ZERO = 1
    DATA = 2


class Flag(IntEnum):
    """Bits of the header's flags."""

    HASHED = 1
    CONTENT_DIGEST = 2


class Header(NamedTuple):
    """The fixed part of a head, field by field."""

    magic: bytes
    version: int
    type: int
    codec: int
    flags: int
    block: int
    session: bytes
    attempt: int
    seq: int
    round_no: int
    pages: int
    data_pages: int
    payload_bytes: int
    digest: int = 0


@dataclass(frozen=True)
class Batch:
    """One batch as it travels.

    `pages` holds the page indices of one block, strictly rising, uint32 of shape
    (n,); `kinds` a PageKind for each, uint8 of shape (n,); `hashes` the XXH3-64 of
    each data page, uint64, or None when nobody asked for them. `payload` belongs to
    the caller and is not copied.
    """

    session: bytes
    seq: int
    attempt: int
    round_no: int
    block: int
    codec: CodecId
    pages: NDArray[np.uint32]
    kinds: NDArray[np.uint8]
    hashes: NDArray[np.uint64] | None
    payload: Buffer

    @cached_property
    def data_pages(self) -> int:
        """How many pages have their bytes in the payload."""
        return int(np.count_nonzero(self.kinds == PageKind.DATA))


@dataclass(frozen=True)
class FrameLimits:
    """What a receiver lets in: its session, the pages of each block, the size of a batch."""

    session: bytes
    block_pages: tuple[int, ...]
    batch_pages: int

    @property
    def head_bytes(self) -> int:
        """The longest head, in bytes."""
        return HEADER.size + self.batch_pages * (TABLE_BYTES_A_PAGE + HASH_BYTES)

    @property
    def payload_bytes(self) -> int:
        """The longest payload: a batch that does not shrink travels raw."""
        return self.batch_pages * PAGE_BYTES

    def window(self, workers: int) -> int:
        """How many frames may be out at once, where so many `workers` take part at both ends."""
        return max(WINDOW_BYTES // self.payload_bytes, 2 * workers)


def encode_hello(session: bytes, worker: int) -> bytes:
    """The first frame on a data connection: which session, which compress worker."""
    kind = FrameType.HELLO
    header = Header(MAGIC, PROTOCOL_VERSION, kind, 0, 0, 0, session, 0, worker, 0, 0, 0, 0)
    return _sealed(bytearray(HEADER.pack(*header)), b"")


def encode_batch(batch: Batch, *, content_digest: bool) -> bytes:
    """The head of `batch`, to be sent in front of its payload.

    With `content_digest` the digest covers the payload, otherwise the head alone.
    """
    flags = (Flag.HASHED if batch.hashes is not None else 0) | (
        Flag.CONTENT_DIGEST if content_digest else 0
    )
    header = Header(
        MAGIC,
        PROTOCOL_VERSION,
        FrameType.BATCH,
        batch.codec,
        flags,
        batch.block,
        batch.session,
        batch.attempt,
        batch.seq,
        batch.round_no,
        len(batch.pages),
        batch.data_pages,
        len(batch.payload),
    )
    pages = batch.pages.astype(INDEX, copy=False).tobytes()
    hashes = b"" if batch.hashes is None else batch.hashes.astype(HASH, copy=False).tobytes()
    head = bytearray(b"".join((HEADER.pack(*header), pages, batch.kinds.tobytes(), hashes)))
    return _sealed(head, batch.payload if content_digest else b"")


def _sealed(head: bytearray, covered: Buffer) -> bytes:
    struct.pack_into("<Q", head, DIGEST_OFFSET, digest_of(head, DIGEST_OFFSET, covered))
    return bytes(head)
