"""Control messages: what coordinator and receiver say to each other.

Each is a msgspec struct, encoded as msgpack: no pickle, no code, strict types. What
a number in one may be is checked here, when it is decoded. Envelopes, numbers and
acknowledgements are protocol/channel.py's.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from protocol import limits
from protocol.errors import RemoteProtocolError

CodecName = Literal["none", "zlib", "zstd", "lz4"]
CodecChoice = Literal[CodecName, "auto"]
"""`auto`: each frame by one of those that the destination has."""
VerifyMode = Literal["full", "frames", "off"]
Seq = Annotated[int, Meta(ge=0, le=limits.MAX_SEQ)]
Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Digest = Annotated[int, Meta(ge=0)]
"""XXH3-64; an integer of msgpack has 64 bits at most."""
BlockNo = Annotated[int, Meta(ge=0, lt=limits.MAX_BLOCKS + limits.MAX_DISKS)]
Name = Annotated[str, Meta(min_length=1, max_length=limits.MAX_BLOCK_NAME_BYTES)]
Milliseconds = Annotated[float, Meta(ge=0, lt=2.0**53)]
EndpointName = Annotated[str, Meta(min_length=1, max_length=512)]
Reason = Annotated[str, Meta(max_length=limits.REASON_CHARS)]


def _check_whole(data: bytes, item_bytes: int) -> None:
    if len(data) % item_bytes:
        raise ValueError(f"{len(data)} bytes are no whole number of {item_bytes}-byte items")


class Message(Struct, frozen=True, tag=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all control messages; the class name is the tag on the wire."""


class BlockInfo(Struct, frozen=True, forbid_unknown_fields=True):
    """A named range of guest memory and its size in pages."""

    name: Name
    pages: Annotated[int, Meta(ge=1, le=limits.MAX_BLOCK_PAGES)]


class DiskInfo(Struct, frozen=True, forbid_unknown_fields=True):
    """A disk that comes along: its size in pages, and the digest of the page hashes of the base
    that it is told from, None where all of it comes."""

    pages: Annotated[int, Meta(ge=1, le=limits.MAX_BLOCK_PAGES)]
    base: Digest | None


class Hello(Message, frozen=True):
    """Source: the guest that wants to come, and how its pages will travel. Blocks are numbered from
    0 on, disks behind those of memory."""

    name: Annotated[str, Meta(max_length=255)]
    kind: Annotated[str, Meta(max_length=32)]
    blocks: Annotated[list[BlockInfo], Meta(min_length=1, max_length=limits.MAX_BLOCKS)]
    batch_pages: Annotated[int, Meta(ge=1, le=limits.MAX_BATCH_PAGES)]
    codec: CodecChoice
    verify: VerifyMode
    connections: Annotated[int, Meta(ge=1, le=limits.MAX_ENDPOINTS)]
    machine: Annotated[str, Meta(max_length=255)]
    disks: Annotated[list[DiskInfo], Meta(max_length=limits.MAX_DISKS)]


class Welcome(Message, frozen=True):
    """Destination: where its decompress workers listen, how much may be out, by which codecs."""

    endpoints: Annotated[
        list[EndpointName],
        Meta(min_length=1, max_length=limits.MAX_ENDPOINTS),
    ]
    window: Annotated[int, Meta(ge=1, le=limits.MAX_WINDOW)]
    codecs: Annotated[list[CodecName], Meta(min_length=1, max_length=16)]


class Endpoint(Message, frozen=True):
    """Destination: another decompress worker takes over; frames of this lane go there now."""

    lane: Annotated[int, Meta(ge=0, lt=limits.MAX_ENDPOINTS)]
    endpoint: EndpointName


class Holes(Message, frozen=True):
    """Source: pages that do not exist, as pairs (first page, pages), uint64 little-endian."""

    block: BlockNo
    extents: Annotated[bytes, Meta(max_length=16 * limits.EXTENTS_A_MESSAGE)]

    def __post_init__(self) -> None:
        _check_whole(self.extents, 16)


class RoundStart(Message, frozen=True):
    """Source: all before `first_seq` is applied, what follows belongs to this round."""

    round_no: Annotated[int, Meta(ge=1, lt=2**32)]
    first_seq: Seq


class Applied(Message, frozen=True):
    """Destination: every frame up to `seq` is in memory; busy times so far, in ns.

    `uncompared` pages are in memory and still to be read back.
    """

    seq: Seq
    decompress_ns: Count
    write_ns: Count
    uncompared: Count


class Redo(Message, frozen=True):
    """Destination: the frame of `seq` did not arrive whole."""

    seq: Seq
    reason: Reason


class Verify(Message, frozen=True):
    """Source: `last_seq` was the last frame; the digest of each block's page hashes."""

    last_seq: Seq
    digests: Annotated[list[Digest], Meta(max_length=limits.MAX_BLOCKS + limits.MAX_DISKS)]


class Mismatch(Message, frozen=True):
    """Destination: pages whose bytes in memory are not what was sent, uint32 each."""

    block: BlockNo
    pages: Annotated[bytes, Meta(min_length=4, max_length=4 * limits.PAGES_A_MESSAGE)]

    def __post_init__(self) -> None:
        _check_whole(self.pages, 4)


class Verified(Message, frozen=True):
    """Destination: the comparison is over; how many pages were wrong."""

    mismatches: Count


class Devices(Message, frozen=True):
    """Source: a piece of the encoded device sections; the last one says so."""

    data: Annotated[bytes, Meta(max_length=limits.DEVICE_PIECE_BYTES)]
    last: bool


class Ready(Message, frozen=True):
    """Destination: devices loaded, guest paused, waiting for the commit."""

    load_ms: Milliseconds


class Commit(Message, frozen=True):
    """Source: the guest is yours."""


class Started(Message, frozen=True):
    """Destination: the guest was started here `since_ms` ago (or is here, paused, where it was
    paused)."""

    since_ms: Milliseconds
    running: bool


class Settled(Message, frozen=True):
    """Source: it is on record here that the guest is yours; nobody will ask again."""


class NotStarted(Message, frozen=True):
    """Destination: a definite no; the guest does not run here and will not."""

    reason: Reason


class Cancel(Message, frozen=True):
    """Source: the migration was cancelled; or failed, with its reason."""

    reason: Reason
    failed: bool


class Failed(Message, frozen=True):
    """Destination: it cannot go on."""

    reason: Reason
    cancelled: bool


class Alive(Message, frozen=True):
    """Either end: still here."""


AnyMessage = (
    Hello | Welcome | Endpoint | Holes | RoundStart | Applied | Redo | Verify | Mismatch | Verified
    | Devices | Ready | Commit | Started | Settled | NotStarted | Cancel | Failed | Alive
)  # fmt: skip

_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(AnyMessage)


def encode_message(message: AnyMessage) -> bytes:
    """`message` as msgpack."""
    return _ENCODER.encode(message)


def decode_message(body: bytes | memoryview) -> AnyMessage:
    """The message in `body`; RemoteProtocolError when it is none, or a number is out of range."""
    try:
        message: AnyMessage = _DECODER.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RemoteProtocolError(f"malformed control message: {error}") from None
    return message
