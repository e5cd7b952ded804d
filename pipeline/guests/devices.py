"""The devices of a synthetic guest: clock, prng, counters, workload, as versioned sections.

Invariant: a runner that is loaded from what was saved, on a copy of the memory, goes on
exactly where the other one was.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta, Struct

from pipeline.guests.memory import GuestMemory
from pipeline.guests.workload import Count, Runner, Workload
from protocol.devices import Section
from protocol.errors import GuestError
from protocol.limits import PAGE_BYTES

VERSION = 1
_Word128 = Annotated[bytes, Meta(min_length=16, max_length=16)]


class Clock(Struct, frozen=True, tag="clock", forbid_unknown_fields=True):
    """When the guest last ran, ns of the monotonic clock of the system that booted as `boot`."""

    last_ns: Count
    boot: str


class Prng(Struct, frozen=True, tag="prng", forbid_unknown_fields=True):
    """All of numpy's PCG64: two 128-bit numbers, little-endian, and a half-used draw."""

    state: _Word128
    increment: _Word128
    has_uint32: Annotated[int, Meta(ge=0, le=1)]
    uinteger: Annotated[int, Meta(ge=0, lt=2**32)]


class Counters(Struct, frozen=True, tag="counters", forbid_unknown_fields=True):
    """Writes ever made, and the digest of the memory that the workload leaves alone."""

    writes: Count
    static_digest: Annotated[int, Meta(ge=0)]


class Progress(Struct, frozen=True, tag="workload", forbid_unknown_fields=True):
    """What the guest does, in how much memory, and where its pattern stands."""

    workload: Workload
    memory_bytes: Count
    position: Count


_Device: TypeAlias = Clock | Prng | Counters | Progress
_NAMES = ("clock", "prng", "counters", "workload")
_DECODER = msgspec.msgpack.Decoder(_Device)


@dataclass(frozen=True)
class Arrived:
    """A runner that was loaded; `left_ns`: when it last ran, None where that was elsewhere."""

    runner: Runner
    static_digest: int
    left_ns: int | None


def save(runner: Runner, static_digest: int) -> list[Section]:
    """The sections of a runner that stands still."""
    memory_bytes = runner.memory.pages * PAGE_BYTES
    devices: tuple[_Device, ...] = (
        Clock(runner.clock_ns, _boot()),
        _save_prng(runner),
        Counters(runner.total, static_digest),
        Progress(runner.workload, memory_bytes, runner.position),
    )
    encode = msgspec.msgpack.encode
    named = zip(_NAMES, devices, strict=True)
    return [Section(name, 0, VERSION, encode(device)) for name, device in named]


def load(sections: list[Section], memory: GuestMemory) -> Arrived:
    """The runner that `sections` tell of, on `memory`; GuestError where they do not fit."""
    found = {section.name: _decode(section) for section in sections}
    if len(sections) != len(_NAMES) or found.keys() != set(_NAMES):
        names = ", ".join(section.name for section in sections)
        raise GuestError(f"device sections {names or 'none'}; one each of {_NAMES} is needed")
    match [found[name] for name in _NAMES]:
        case [Clock() as clock, Prng() as prng, Counters() as counters, Progress() as progress]:
            runner = _runner(progress, memory)
        case _:
            raise GuestError("a device section holds the state of another device")
    runner.total = counters.writes
    _load_prng(runner, prng)
    left_ns = clock.last_ns if clock.boot == _boot() else None
    return Arrived(runner, counters.static_digest, left_ns)


def _decode(section: Section) -> _Device:
    if section.name not in _NAMES or section.instance != 0:
        raise GuestError(f"unknown device section {section.name} {section.instance}")
    if section.version != VERSION:
        raise GuestError(
            f"device section {section.name} has version {section.version}, {VERSION} is known"
        )
    try:
        device: _Device = _DECODER.decode(section.payload)
    except (msgspec.DecodeError, RecursionError) as error:
        raise GuestError(f"device section {section.name}: {error}") from None
    return device


def _runner(progress: Progress, memory: GuestMemory) -> Runner:
    if progress.memory_bytes != memory.pages * PAGE_BYTES:
        raise GuestError(
            f"the guest had {progress.memory_bytes} bytes of memory,"
            f" {memory.pages * PAGE_BYTES} are here"
        )
    runner = Runner(progress.workload, memory)
    if progress.position >= runner.layout.working_pages:
        raise GuestError(f"position {progress.position} is outside the working set")
    runner.position = progress.position
    return runner


def _save_prng(runner: Runner) -> Prng:
    state = runner.prng.state
    numbers = state["state"]
    return Prng(
        numbers["state"].to_bytes(16, "little"),
        numbers["inc"].to_bytes(16, "little"),
        state["has_uint32"],
        state["uinteger"],
    )


def _load_prng(runner: Runner, prng: Prng) -> None:
    runner.prng.state = {
        "bit_generator": "PCG64",
        "state": {
            "state": int.from_bytes(prng.state, "little"),
            "inc": int.from_bytes(prng.increment, "little"),
        },
        "has_uint32": prng.has_uint32,
        "uinteger": prng.uinteger,
    }


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
