"""Opening of data frames: what is checked, in which order, before anything in one is believed.

Nothing is believed before the digest is right, nothing is allocated by a length that was not
checked. The order is in docs/wire-format.md.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from protocol.digest import Buffer, digest_of
from protocol.errors import FrameDamaged, RemoteProtocolError
from protocol.frames import (
    DELTAS,
    DIGEST_OFFSET,
    HASH,
    HASH_BYTES,
    HEADER,
    INDEX,
    MAGIC,
    TABLE_BYTES_A_PAGE,
    ZERO,
    Batch,
    CodecId,
    Flag,
    FrameLimits,
    FrameType,
    Header,
)
from protocol.limits import MAX_SEQ, PAGE_BYTES, PROTOCOL_VERSION

_CODECS: Mapping[int, CodecId] = {codec.value: codec for codec in CodecId}
_FLAGS = Flag.HASHED | Flag.CONTENT_DIGEST | Flag.DELTAS


def decode_hello(head: Buffer, session: bytes) -> int:
    """The number of the compress worker that opens a connection with `head`.

    RemoteProtocolError when it is not the hello of this session.
    """
    header = _opened(head, b"", FrameType.HELLO)
    if header.flags:
        raise RemoteProtocolError(f"a hello with flags {header.flags:#x}")
    _check_lengths(header, NO_DELTAS, head, b"", "hello")
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
    deltas = _deltas(header, head)
    _check_lengths(header, deltas, head, payload, where)
    _check_meaning(header, limits, where)
    hashed = header.flags & Flag.HASHED
    tables, count = memoryview(head)[_tables_at(header) :], header.pages
    nonzero = header.data_pages + deltas.pages
    batch = Batch(
        session=header.session,
        seq=header.seq,
        attempt=header.attempt,
        round_no=header.round_no,
        block=header.block,
        codec=_CODECS[header.codec],
        pages=np.frombuffer(tables, INDEX, count),
        kinds=np.frombuffer(tables, np.uint8, count, count * 4),
        hashes=np.frombuffer(tables, HASH, nonzero, count * 5) if hashed else None,
        payload=payload,
        delta_bytes=deltas.bytes,
    )
    _check_deltas(batch, header, deltas, where)
    _check_tables(batch, header.data_pages, limits.block_pages[header.block], where)
    return batch


def maybe_seq(head: Buffer) -> int:
    """The seq in `head`, not checked against its digest; 0, which no batch has, for none."""
    seq = Header(*HEADER.unpack_from(head)).seq if len(head) >= HEADER.size else 0
    return seq if seq <= MAX_SEQ else 0


def _tables_at(header: Header) -> int:
    return HEADER.size + (DELTAS.size if header.flags & Flag.DELTAS else 0)


class DeclaredDeltas(NamedTuple):
    """How many deltas there are, and the bytes of their section."""

    pages: int
    bytes: int


NO_DELTAS = DeclaredDeltas(0, 0)


def _deltas(header: Header, head: Buffer) -> DeclaredDeltas:
    """As declared; a head that is too short for them has a length that is refused."""
    if not header.flags & Flag.DELTAS or len(head) < HEADER.size + DELTAS.size:
        return NO_DELTAS
    return DeclaredDeltas(*DELTAS.unpack_from(head, HEADER.size))


def _check_lengths(
    header: Header, deltas: DeclaredDeltas, head: Buffer, payload: Buffer, where: str
) -> None:
    hashed = header.data_pages + deltas.pages if header.flags & Flag.HASHED else 0
    expected = _tables_at(header) + header.pages * TABLE_BYTES_A_PAGE + hashed * HASH_BYTES
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
    if (pages[1:] <= pages[:-1]).any():
        raise RemoteProtocolError(f"{where}: page indices do not rise")
    zeros = int(np.count_nonzero(kinds == ZERO))
    if batch.data_pages != data or data + zeros + batch.delta_pages != len(kinds):
        raise RemoteProtocolError(f"{where}: {data} data pages declared, the kinds say otherwise")
    if not batch.unpacked_bytes and len(batch.payload):
        raise RemoteProtocolError(f"{where}: a payload without data pages")


def _check_deltas(batch: Batch, header: Header, deltas: DeclaredDeltas, where: str) -> None:
    """Their section is smaller than so many pages: no more is unpacked than of raw ones."""
    if header.flags & Flag.DELTAS and not 0 < deltas.bytes < batch.delta_pages * PAGE_BYTES:
        raise RemoteProtocolError(f"{where}: {deltas.bytes} bytes of deltas")
    if batch.delta_pages != deltas.pages:
        raise RemoteProtocolError(
            f"{where}: {deltas.pages} deltas declared, the kinds say otherwise"
        )


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
