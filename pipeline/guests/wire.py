"""What the driver and the process of a synthetic guest say to each other.

Requests and answers are msgspec structs in msgpack, one a packet on a SOCK_SEQPACKET
socket, each with the number of its request: an answer that comes too late is known for
one. Only `Described` comes with a file descriptor, that of the memory.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from pipeline.guests.workload import Workload
from protocol.devices import Section
from protocol.session import Role

PACKET_BYTES = 128 << 10
"""What a packet may be at most; the device state of a guest takes under 1 KiB."""

State = Literal["waiting", "running", "paused", "gone"]
Number = Annotated[int, Meta(ge=0, le=2**63 - 1)]


class Request(Struct, frozen=True, tag=True):
    """Base of the requests; the class name is the tag."""


class Start(Request, frozen=True):
    """First of all: make memory, in the file `path` or without a name. With a workload, fill it
    and run; without one, wait to be filled: Done."""

    memory_bytes: Annotated[int, Meta(ge=1, le=2**63 - 1)]
    workload: Workload | None
    path: str | None


class Describe(Request, frozen=True):
    """Where the memory is, and whether it is in use: Described."""


class Arm(Request, frozen=True):
    """Register the memory for asynchronous write-protection: Armed. Idempotent."""


class Stop(Request, frozen=True):
    """Stop writing: Stopped."""


class Resume(Request, frozen=True):
    """Write on: Done. Idempotent."""


class Slow(Request, frozen=True):
    """Have so much less processor time, until it stops or is in no migration any more: Done."""

    percent: Annotated[int, Meta(ge=0, le=99)]


class Save(Request, frozen=True):
    """The device state of a stopped guest: Saved."""


class Load(Request, frozen=True):
    """Take this device state, stay paused: Done."""

    sections: list[Section]


class Check(Request, frozen=True):
    """Prove the memory right: Checked."""


class Statistics(Request, frozen=True):
    """What was reached since the last time: Told."""


class Begin(Request, frozen=True):
    """It has arrived for good, in `session`: run, or stay paused. Done."""

    session: str
    run: bool


class Leave(Request, frozen=True):
    """It was given away while it was paused: never run here again. Done. Idempotent."""


class Migrates(Request, frozen=True):
    """It is in a migration from now on, as the guest of this end; `session` None: in none. Done."""

    role: Role
    session: str | None


class Quit(Request, frozen=True):
    """End: Done, then the socket closes."""


class Answer(Struct, frozen=True, tag=True):
    """Base of the answers."""


class Done(Answer, frozen=True):
    """What was asked for is done."""


class Described(Answer, frozen=True):
    """The one block; its descriptor comes along. `address`: where the process has it mapped.

    `state` is `waiting` for one that has not arrived, `gone` for one that was given away;
    `session` is the one that it arrived in, empty where it did not have to.
    """

    name: str
    pages: int
    address: int
    state: State
    session: str


class Armed(Answer, frozen=True):
    """None, or why the kernel refused."""

    error: str | None


class Stopped(Answer, frozen=True):
    """The run state that it had: running or paused."""

    run_state: str


class Saved(Answer, frozen=True):
    """The device state."""

    sections: list[Section]


class Checked(Answer, frozen=True):
    """None, or which page is wrong and how."""

    bad: str | None


class Told(Answer, frozen=True):
    """The fields of GuestStatistics."""

    dirty_rate: float | None
    gap_ms: float | None


class Refused(Answer, frozen=True):
    """It cannot be done, in one line."""

    reason: str


AnyRequest = (
    Start | Describe | Arm | Stop | Resume | Slow | Save | Load | Check | Statistics | Begin
    | Leave | Migrates | Quit
)  # fmt: skip
AnyAnswer = Done | Described | Armed | Stopped | Saved | Checked | Told | Refused

_ENCODER = msgspec.msgpack.Encoder()
_REQUEST = msgspec.msgpack.Decoder(tuple[Number, AnyRequest])
_ANSWER = msgspec.msgpack.Decoder(tuple[Number, AnyAnswer])


def encode(numbered: tuple[int, Request | Answer]) -> bytes:
    """A numbered request or answer as a packet."""
    return _ENCODER.encode(numbered)


def decode_request(packet: bytes) -> tuple[int, AnyRequest]:
    """The request in `packet`; msgspec.DecodeError where there is none."""
    numbered: tuple[int, AnyRequest] = _REQUEST.decode(packet)
    return numbered


def decode_answer(packet: bytes) -> tuple[int, AnyAnswer]:
    """The answer in `packet`; msgspec.DecodeError where there is none."""
    numbered: tuple[int, AnyAnswer] = _ANSWER.decode(packet)
    return numbered
