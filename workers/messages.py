"""What a pool and its workers say to each other: msgspec structs, as msgpack over ipc.

Page lists travel as the bytes of a uint32 array. These messages never leave a machine.
"""

import msgspec
from msgspec import Struct


class PoolMessage(Struct, frozen=True, tag=True, array_like=True):
    """Base of all messages inside a pool."""


class Connect(PoolMessage, frozen=True):
    """To a compress worker: the endpoints of the decompress workers, by lane. A connection to
    one that is not among them any more is dropped; `Cut` says so."""

    endpoints: list[str]


class SendJob(PoolMessage, frozen=True):
    """To a compress worker: read these pages, compress them by `codec` at `level`, send them as
    frame `seq`.

    `final`: the guest is stopped, so that the bytes cannot change any more. `cache_slots` are in
    use of the cache of sent pages, 0 without one.
    """

    seq: int
    attempt: int
    round_no: int
    block: int
    lane: int
    final: bool
    codec: str
    level: int
    pages: bytes
    cache_slots: int = 0


class ScanJob(PoolMessage, frozen=True):
    """To a compress worker: which pages of a range differ from the hash table?"""

    job: int
    block: int
    first: int
    count: int


class Reconnect(PoolMessage, frozen=True):
    """To a compress worker: drop the connection of a lane, and say `Cut`."""

    lane: int


class Ping(PoolMessage, frozen=True):
    """To any worker: do you hear?"""


class Stop(PoolMessage, frozen=True):
    """To any worker: come to an end."""


class Pong(PoolMessage, frozen=True):
    """From any worker: the answer to `Ping`."""


class Cut(PoolMessage, frozen=True):
    """From a compress worker: the connection of a lane is gone, and with it, perhaps, what it
    has said to be sent there before. The next frame goes over a new one."""

    lane: int


class Up(PoolMessage, frozen=True):
    """From any worker: ready; where a decompress worker listens."""

    endpoint: str


class Sent(PoolMessage, frozen=True):
    """From a compress worker: the frame of `seq` is out. Counts are pages, times ns:

    `hash_ns` and `compress_ns` of processor time, `blocked_ns` of waiting for the wire. Of pages
    that were `looked_up` in the cache, `missed` were not there, or their delta is an `overflow`.
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
    delta_pages: int = 0
    delta_bytes: int = 0
    looked_up: int = 0
    missed: int = 0
    overflow: int = 0


class Unsent(PoolMessage, frozen=True):
    """From a compress worker: the frame of `seq` did not get out, and why."""

    seq: int
    attempt: int
    reason: str


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
    """From a decompress worker: a batch, whose data pages lie in `slot`, and its deltas behind
    them."""

    seq: int
    attempt: int
    round_no: int
    block: int
    slot: int
    pages: bytes
    kinds: bytes
    hashes: bytes | None
    busy_ns: int
    delta_bytes: int = 0


class Checked(PoolMessage, frozen=True):
    """From a decompress worker: the pages of a read-back job that differ."""

    job: int
    pages: bytes


class Refused(PoolMessage, frozen=True):
    """From a decompress worker: a frame that cannot be taken, and why.

    `damaged`: it changed on the way; `seq` is what its head says, 0 where that cannot be read.
    """

    reason: str
    damaged: bool
    seq: int


class TurnedAway(PoolMessage, frozen=True):
    """From a decompress worker: somebody who was not let in, and why."""

    address: str
    reason: str


class Broken(PoolMessage, frozen=True):
    """From any worker: it failed; `kind` names a class in protocol.errors."""

    kind: str
    reason: str


ToWorker = Connect | Reconnect | SendJob | ScanJob | Grant | ReadBack | Ping | Stop
FromWorker = (
    Up | Pong | Sent | Unsent | Scanned | Cut | Arrived | Checked | Refused | TurnedAway | Broken
)

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
