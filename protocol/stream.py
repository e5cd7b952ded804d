"""Byte streams: the same envelopes and frames as over ZeroMQ, each with its lengths before it.

Pure: who reads gives what has come and gets the record once it is whole. Nothing is allocated
by a length that was not checked. The layout is in docs/wire-format.md.
"""

import struct
from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

from protocol.errors import RemoteProtocolError
from protocol.frames import HASH_BYTES, HEADER, TABLE_BYTES_A_PAGE
from protocol.limits import (
    MAX_BATCH_PAGES,
    MAX_CONTROL_BYTES,
    MAX_LANE,
    PAGE_BYTES,
    PROTOCOL_VERSION,
)

MAGIC = b"PGFS"
PREAMBLE = struct.Struct("<4sHH")
"""magic, version, content."""
RECORD = struct.Struct("<BBHII")
"""kind, parts, lane, bytes of the first and of the second part."""
DIGEST = struct.Struct("<Q")

MAX_HEAD_BYTES = HEADER.size + MAX_BATCH_PAGES * (TABLE_BYTES_A_PAGE + HASH_BYTES)
MAX_PAYLOAD_BYTES = MAX_BATCH_PAGES * PAGE_BYTES


class Content(IntEnum):
    """What a stream is."""

    TUNNEL = 1
    SAVED = 2


class Kind(IntEnum):
    """What a record is; zero is invalid, so that a zeroed one means nothing."""

    CONTROL = 1
    FRAME = 2
    END = 3


_LENGTHS: dict[Kind, tuple[range, int, int]] = {
    Kind.CONTROL: (range(1, 2), MAX_CONTROL_BYTES, 0),
    Kind.FRAME: (range(1, 3), MAX_HEAD_BYTES, MAX_PAYLOAD_BYTES),
    Kind.END: (range(1, 2), DIGEST.size, 0),
}
"""For each kind how many parts it has, and the most bytes of the first and of the second."""


class Record(NamedTuple):
    """One message: its kind, the lane of a frame, and the parts as they travel with ZeroMQ."""

    kind: Kind
    lane: int
    parts: Sequence[memoryview]


def encode_preamble(content: Content) -> bytes:
    """What a stream begins with."""
    return PREAMBLE.pack(MAGIC, PROTOCOL_VERSION, content)


def encode_record(record: Record) -> bytes:
    """What goes before the parts of `record`."""
    first, second = (*map(len, record.parts), 0)[:2]
    return RECORD.pack(record.kind, len(record.parts), record.lane, first, second)


class _Header(NamedTuple):
    kind: Kind
    parts: int
    lane: int
    first: int
    second: int


class RecordReader:
    """Puts together what comes in pieces; owned by who reads the stream.

    Read into `room`, then say how much came. The parts of a record are views of memory of its
    own.
    """

    def __init__(self, content: Content) -> None:
        self._content = content
        self._header: _Header | None = None
        self._filled = 0
        self._is_open = False
        self._buffer = memoryview(bytearray(PREAMBLE.size))

    @property
    def room(self) -> memoryview:
        """Where the next bytes belong; never empty."""
        return self._buffer[self._filled :]

    @property
    def is_between(self) -> bool:
        """Whether the stream may end here, as far as records go."""
        return self._header is None and self._filled == 0

    def took(self, count: int) -> Record | None:
        """`count` bytes more are in `room`: the record that is whole by that, if one is.

        RemoteProtocolError for a stream of another kind or version, or a length over a limit.
        """
        self._filled += count
        if self._filled < len(self._buffer):
            return None
        whole = self._buffer
        header = self._header
        if self._is_open and header is None:
            self._header = header = _opened(whole)
            self._expect(header.first + header.second)
            return None
        self._header = None
        self._expect(RECORD.size)
        if header is None:
            self._check_preamble(whole)
            self._is_open = True
            return None
        parts = [whole[: header.first], whole[header.first :]]
        return Record(header.kind, header.lane, parts[: header.parts])

    def _expect(self, size: int) -> None:
        self._filled, self._buffer = 0, memoryview(bytearray(size))

    def _check_preamble(self, whole: memoryview) -> None:
        magic, version, content = PREAMBLE.unpack(whole)
        if magic != MAGIC:
            raise RemoteProtocolError(f"not a pageferry stream: it begins with {bytes(whole)!r}")
        if version != PROTOCOL_VERSION:
            raise RemoteProtocolError(
                f"wrong version {version} of a stream, this end speaks {PROTOCOL_VERSION}"
            )
        if content != self._content:
            raise RemoteProtocolError(f"a stream of content {content}, not {self._content}")


def _opened(header: memoryview) -> _Header:
    """The header of a record, once all of it is within its limits."""
    number, parts, lane, first, second = RECORD.unpack(header)
    kind = _KINDS.get(number)
    if kind is None:
        raise RemoteProtocolError(f"a record of unknown kind {number}")
    counts, most_first, most_second = _LENGTHS[kind]
    if parts not in counts or (second and parts == 1):
        raise RemoteProtocolError(f"a record of kind {kind.name} with {parts} parts")
    if not 0 < first <= most_first or second > most_second:
        raise RemoteProtocolError(
            f"a record of kind {kind.name} with {first} + {second} bytes,"
            f" {most_first} + {most_second} are allowed"
        )
    if lane > (MAX_LANE if kind is Kind.FRAME else 0):
        raise RemoteProtocolError(f"a record of kind {kind.name} for lane {lane}")
    return _Header(kind, parts, lane, first, second)


_KINDS = {kind.value: kind for kind in Kind}
