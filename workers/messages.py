"""What a pool and its workers say to each other: msgspec structs, as msgpack over ipc.

Page lists travel as the bytes of a uint32 array. These messages never leave a machine.
"""

import msgspec
from msgspec import Struct


class PoolMessage(Struct, frozen=True, tag=True, array_like=True):
    """Base of all messages inside a pool."""


class Connect(PoolMessage, frozen=True):
    """To a compress worker: the endpoints of the decompress workers, by lane."""

    endpoints: list[str]


class SendJob(PoolMessage, frozen=True):
    """To a compress worker: read, compress and send these pages as frame `seq`.

    `settled`: the guest is stopped, so that the bytes cannot change any more.
    """

    seq: int
    attempt: int
    round_no: int
    block: int
    lane: int
    settled: bool
    pages: bytes


class ScanJob(PoolMessage, frozen=True):
    """To a compress worker: which pages of a range differ from the hash table?"""

    job: int
    block: int
    first: int
    count: int


class Stop(PoolMessage, frozen=True):
    """To any worker: come to an end."""


class Up(PoolMessage, frozen=True):
    """From any worker: ready; where a decompress worker listens."""

    endpoint: str


class Sent(PoolMessage, frozen=True):
    """From a compress worker: the frame of `seq` is out. Counts are pages, times ns:

    `hash_ns` and `compress_ns` of processor time, `blocked_ns` of waiting for the wire.
    """

    seq: int
    attempt: int
    zero_pages: int
    data_pages: int
    wire_bytes: int
    payload_bytes: int
    compressed: bool
    hash_ns: int
    compress_ns: int
    blocked_ns: int


class Scanned(PoolMessage, frozen=True):
    """From a compress worker: the pages of a scan job that differ."""

    job: int
    pages: bytes
    busy_ns: int


class Grant(PoolMessage, frozen=True):
    """To a decompress worker: these slots are yours until you report them."""

    slots: list[int]


class ReadBack(PoolMessage, frozen=True):
    """To a decompress worker: hash these pages in memory against what was sent."""

    job: int
    block: int
    pages: bytes


class Arrived(PoolMessage, frozen=True):
    """From a decompress worker: a batch, whose data pages lie in `slot`."""

    seq: int
    attempt: int
    round_no: int
    block: int
    slot: int
    pages: bytes
    kinds: bytes
    hashes: bytes | None
    busy_ns: int


class Checked(PoolMessage, frozen=True):
    """From a decompress worker: the pages of a read-back job that differ."""

    job: int
    pages: bytes


class Refused(PoolMessage, frozen=True):
    """From a decompress worker: a frame that cannot be taken, and why."""

    reason: str
    damaged: bool


class Broken(PoolMessage, frozen=True):
    """From any worker: it failed; `kind` names a class in protocol.errors."""

    kind: str
    reason: str


ToWorker = Connect | SendJob | ScanJob | Grant | ReadBack | Stop
FromWorker = Up | Sent | Scanned | Arrived | Checked | Refused | Broken

_ENCODER = msgspec.msgpack.Encoder()
_TO_WORKER = msgspec.msgpack.Decoder(ToWorker)
_FROM_WORKER = msgspec.msgpack.Decoder(FromWorker)

encode = _ENCODER.encode


def decode_to_worker(body: bytes) -> ToWorker:
    """A message from the pool."""
    message: ToWorker = _TO_WORKER.decode(body)
    return message


def decode_from_worker(body: bytes) -> FromWorker:
    """A message from a worker."""
    message: FromWorker = _FROM_WORKER.decode(body)
    return message
