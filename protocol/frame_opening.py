"""Opening of data frames: what is checked, in which order, before anything in one is believed.

Nothing is believed before the digest is right, nothing is allocated by a length that was not
checked. The order is in docs/wire-format.md.
"""

from collections.abc import Mapping

import numpy as np

from protocol.digest import Buffer, digest_of
from protocol.errors import FrameDamaged, RemoteProtocolError
from protocol.frames import (
    DIGEST_OFFSET,
    HASH,
    HASH_BYTES,
    HEADER,
    INDEX,
    MAGIC,
    TABLE_BYTES_A_PAGE,
    Batch,
    CodecId,
    Flag,
    FrameLimits,
    FrameType,
    Header,
    PageKind,
)
from protocol.limits import MAX_SEQ, PROTOCOL_VERSION

_CODECS: Mapping[int, CodecId] = {codec.value: codec for codec in CodecId}
_FLAGS = Flag.HASHED | Flag.CONTENT_DIGEST


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
