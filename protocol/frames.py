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

DELTAS = struct.Struct("<II")
"""Behind the header of a batch that has deltas: how many, and bytes of their section."""

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
    DELTA = 3


ZERO, DATA, DELTA = (np.uint8(kind.value) for kind in PageKind)
"""To hold an array against: 1.1 us for a batch, 6.5 with a member of an enum, some times that where
the caches are cold."""


class Flag(IntEnum):
    """Bits of the header's flags."""

    HASHED = 1
    CONTENT_DIGEST = 2
    DELTAS = 4


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
    each page that is not zero, uint64, or None when nobody asked for them. `payload`, the
    data pages and behind them `delta_bytes` of protocol/xbzrle.py, belongs to the caller and
    is not copied.
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
    delta_bytes: int = 0

    @cached_property
    def data_pages(self) -> int:
        """How many pages have their bytes in the payload."""
        return int(np.count_nonzero(self.kinds == DATA))

    @cached_property
    def delta_pages(self) -> int:
        """How many have a delta there."""
        return int(np.count_nonzero(self.kinds == DELTA)) if self.delta_bytes else 0

    @property
    def unpacked_bytes(self) -> int:
        """How long the payload is before compression."""
        return self.data_pages * PAGE_BYTES + self.delta_bytes


@dataclass(frozen=True)
class FrameLimits:
    """What a receiver lets in: its session, the pages of each block, the size of a batch."""

    session: bytes
    block_pages: tuple[int, ...]
    batch_pages: int

    @property
    def head_bytes(self) -> int:
        """The longest head, in bytes."""
        return HEADER.size + DELTAS.size + self.batch_pages * (TABLE_BYTES_A_PAGE + HASH_BYTES)

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
    flags = (
        (Flag.HASHED if batch.hashes is not None else 0)
        | (Flag.CONTENT_DIGEST if content_digest else 0)
        | (Flag.DELTAS if batch.delta_bytes else 0)
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
    deltas = DELTAS.pack(batch.delta_pages, batch.delta_bytes) if batch.delta_bytes else b""
    pages = batch.pages.astype(INDEX, copy=False).tobytes()
    hashes = b"" if batch.hashes is None else batch.hashes.astype(HASH, copy=False).tobytes()
    parts = (HEADER.pack(*header), deltas, pages, batch.kinds.tobytes(), hashes)
    head = bytearray(b"".join(parts))
    return _sealed(head, batch.payload if content_digest else b"")


def _sealed(head: bytearray, covered: Buffer) -> bytes:
    struct.pack_into("<Q", head, DIGEST_OFFSET, digest_of(head, DIGEST_OFFSET, covered))
    return bytes(head)
