"""Data frames: what a compress worker sends to a decompress worker.

A frame is two parts: the *head* (a fixed header and the page tables) and the
*payload* (the data pages, one after the other, compressed as one piece). Nothing
in a frame is believed before its digest is right, nothing is allocated by a
length that was not checked. The layout is in docs/wire-format.md.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from protocol.digest import DIGEST_BYTES, Buffer, digest_of
from protocol.errors import FrameDamaged, RemoteProtocolError
from protocol.limits import MAX_SEQ, PAGE_BYTES, PROTOCOL_VERSION

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


def decode_hello(head: Buffer, session: bytes) -> int:
    """The number of the compress worker that opens a connection with `head`.

    RemoteProtocolError when it is not the hello of this session.
    """
    header = _opened(head, b"", FrameType.HELLO)
    _check_lengths(header, head, b"", "hello")
    if header.session != session:
        raise RemoteProtocolError("a data connection opened for another session")
    return header.seq


def decode_batch(head: Buffer, payload: Buffer, limits: FrameLimits) -> Batch:
    """The batch in `head` and `payload`, checked against `limits`.

    The arrays and the payload are views of the two buffers and live as long as they
    do. FrameDamaged when the digest is wrong, RemoteProtocolError for all else.
    """
    header = _opened(head, payload, FrameType.BATCH)
    if len(head) > limits.head_bytes or len(payload) > limits.payload_bytes:
        raise RemoteProtocolError(
            f"frame too long: {len(head)} + {len(payload)} bytes,"
            f" {limits.head_bytes} + {limits.payload_bytes} allowed"
        )
    where = f"frame of seq {header.seq}, round {header.round_no}"
    _check_lengths(header, head, payload, where)
    _check_meaning(header, limits, where)
    hashed = header.flags & Flag.HASHED
    tables, count = memoryview(head)[HEADER.size :], header.pages
    batch = Batch(
        header.session,
        header.seq,
        header.attempt,
        header.round_no,
        header.block,
        _CODECS[header.codec],
        np.frombuffer(tables, INDEX, count),
        np.frombuffer(tables, np.uint8, count, count * 4),
        np.frombuffer(tables, HASH, header.data_pages, count * 5) if hashed else None,
        payload,
    )
    _check_tables(batch, header.data_pages, limits.block_pages[header.block], where)
    return batch


def maybe_seq(head: Buffer) -> int:
    """The seq in `head`, not checked against its digest; 0, which no batch has, for none."""
    seq = Header(*HEADER.unpack_from(head)).seq if len(head) >= HEADER.size else 0
    return seq if seq <= MAX_SEQ else 0


_CODECS: Mapping[int, CodecId] = {codec.value: codec for codec in CodecId}
_FLAGS = Flag.HASHED | Flag.CONTENT_DIGEST


def _check_lengths(header: Header, head: Buffer, payload: Buffer, where: str) -> None:
    hashes = header.data_pages * HASH_BYTES if header.flags & Flag.HASHED else 0
    expected = HEADER.size + header.pages * TABLE_BYTES_A_PAGE + hashes
    if len(head) != expected or len(payload) != header.payload_bytes:
        raise RemoteProtocolError(
            f"{where}: declares {expected} + {header.payload_bytes} bytes,"
            f" has {len(head)} + {len(payload)}"
        )


def _check_meaning(header: Header, limits: FrameLimits, where: str) -> None:
    if header.session != limits.session:
        raise RemoteProtocolError(f"{where}: belongs to another session")
    if header.block >= len(limits.block_pages):
        raise RemoteProtocolError(
            f"{where}: unknown block {header.block}, there are {len(limits.block_pages)}"
        )
    if header.codec not in _CODECS:
        raise RemoteProtocolError(f"{where}: unknown codec {header.codec}")
    if header.pages > limits.batch_pages:
        raise RemoteProtocolError(
            f"{where}: {header.pages} pages, {limits.batch_pages} make a batch"
        )


def _check_tables(batch: Batch, data: int, block_pages: int, where: str) -> None:
    pages, kinds = batch.pages, batch.kinds
    if len(pages) and int(pages[-1]) >= block_pages:
        raise RemoteProtocolError(
            f"{where}: page index {pages[-1]} outside its block of {block_pages} pages"
        )
    if np.any(pages[1:] <= pages[:-1]):
        raise RemoteProtocolError(f"{where}: page indices do not rise")
    zeros = int(np.count_nonzero(kinds == PageKind.ZERO))
    if batch.data_pages != data or data + zeros != len(kinds):
        raise RemoteProtocolError(f"{where}: {data} data pages declared, the kinds say otherwise")
    if data == 0 and len(batch.payload):
        raise RemoteProtocolError(f"{where}: a payload without data pages")


def _sealed(head: bytearray, covered: Buffer) -> bytes:
    struct.pack_into("<Q", head, DIGEST_OFFSET, digest_of(head, DIGEST_OFFSET, covered))
    return bytes(head)


def _opened(head: Buffer, payload: Buffer, expected: FrameType) -> Header:
    """The header, once length, digest, magic, version and type are right."""
    if len(head) < HEADER.size:
        raise FrameDamaged(f"damaged frame: {len(head)} bytes, a header has {HEADER.size}")
    header = Header(*HEADER.unpack_from(head))
    covered = payload if header.flags & Flag.CONTENT_DIGEST else b""
    if header.digest != digest_of(head, DIGEST_OFFSET, covered):
        raise FrameDamaged(f"damaged frame: wrong digest ({len(head)} + {len(payload)} bytes)")
    if header.magic != MAGIC:
        raise RemoteProtocolError(f"not a pageferry frame: magic {header.magic!r}")
    if header.version != PROTOCOL_VERSION:
        raise RemoteProtocolError(
            f"wrong version {header.version} of a frame, this end speaks {PROTOCOL_VERSION}"
        )
    if header.type != expected:
        raise RemoteProtocolError(f"frame of type {header.type} where {expected.name} was expected")
    if header.flags & ~_FLAGS:
        raise RemoteProtocolError(f"unknown flags {header.flags:#x} of a frame")
    return header
