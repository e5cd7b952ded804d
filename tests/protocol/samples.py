"""Well-formed things to send, and the means to forge them with a right digest."""

import struct
from collections.abc import Iterator
from typing import Any, get_args

import numpy as np
import xxhash

from protocol import control as c
from protocol.channel import ENVELOPE
from protocol.control import AnyMessage
from protocol.frames import (
    DIGEST_OFFSET,
    HEADER,
    Batch,
    CodecId,
    Flag,
    FrameLimits,
    Header,
    PageKind,
)

SESSION = bytes(range(16))
OTHER_SESSION = bytes(16)
LIMITS = FrameLimits(SESSION, (100, 7), 8)

MESSAGES: list[AnyMessage] = [
    c.Hello(
        name="a",
        kind="file",
        blocks=[c.BlockInfo("ram", 100), c.BlockInfo("rom", 7)],
        batch_pages=8,
        codec="zlib",
        verify="full",
        connections=2,
        machine="",
        disks=[],
    ),
    c.Welcome(endpoints=["tcp://127.0.0.1:1", "ipc:///a.1"], window=10, codecs=["zlib"]),
    c.Endpoint(lane=1, endpoint="tcp://127.0.0.1:2"),
    c.Holes(block=1, extents=struct.pack("<QQ", 3, 4)),
    c.RoundStart(round_no=1, first_seq=1),
    c.Applied(seq=3, decompress_ns=4, write_ns=5, uncompared=6),
    c.Redo(seq=4, reason="damaged"),
    c.Verify(last_seq=9, digests=[0, 2**64 - 1]),
    c.Mismatch(block=0, pages=struct.pack("<I", 5)),
    c.Verified(mismatches=1),
    c.Devices(data=b"\0\xff", last=True),
    c.Ready(load_ms=1.5),
    c.Commit(),
    c.Started(since_ms=0.5, running=True),
    c.Settled(),
    c.NotStarted(reason="it is dead"),
    c.Cancel(reason="asked for", failed=False),
    c.Failed(reason="no room", cancelled=False),
    c.Alive(),
]
BY_NAME = {type(message).__name__: message for message in MESSAGES}
assert {type(message) for message in MESSAGES} == set(get_args(AnyMessage))


def make_batch(*, hashed: bool = True, **changes: Any) -> Batch:  # noqa: ANN401
    """Three pages of block 0, one of them zero, with a payload of 12 bytes."""
    fields: dict[str, Any] = {
        "session": SESSION,
        "seq": 5,
        "attempt": 1,
        "round_no": 2,
        "block": 0,
        "codec": CodecId.ZLIB,
        "pages": np.array([3, 4, 99], np.uint32),
        "kinds": np.array([PageKind.DATA, PageKind.ZERO, PageKind.DATA], np.uint8),
        "hashes": np.array([7, 8], np.uint64) if hashed else None,
        "payload": b"payload here",
    }
    return Batch(**{**fields, **changes})


def forge_frame(head: bytes, payload: bytes = b"", **changes: Any) -> bytes:  # noqa: ANN401
    """`head` with `changes` to its header's fields and a digest that is right again."""
    header = Header(*HEADER.unpack_from(head))._replace(**changes)
    forged = HEADER.pack(*header) + head[HEADER.size :]
    covered = payload if header.flags & Flag.CONTENT_DIGEST else b""
    digest = xxhash.xxh3_64_intdigest(forged[:DIGEST_OFFSET] + forged[HEADER.size :] + covered)
    return forged[:DIGEST_OFFSET] + struct.pack("<Q", digest) + forged[HEADER.size :]


def forge_envelope(
    body: bytes,
    *,
    magic: bytes = b"PGFC",
    version: int = 1,
    flags: int = 0,
    session: bytes = SESSION,
    number: int = 1,
    acknowledged: int = 0,
) -> bytes:
    """An envelope around `body` with these fields and a right digest."""
    head = ENVELOPE.pack(magic, version, flags, session, number, acknowledged, 0)[:-8]
    return head + struct.pack("<Q", xxhash.xxh3_64_intdigest(head + body)) + body


def single_bit_flips(data: bytes) -> Iterator[bytes]:
    """`data` with each of its bits flipped in turn."""
    for bit in range(len(data) * 8):
        yield flipped(data, bit)


def flipped(data: bytes, bit: int) -> bytes:
    """`data` with bit number `bit` flipped."""
    damaged = bytearray(data)
    damaged[bit // 8] ^= 1 << bit % 8
    return bytes(damaged)
