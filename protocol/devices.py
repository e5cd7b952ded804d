"""Device sections: the guest's state beside its memory, versioned, checked, bounded.

A section is opaque to the engine but for its name, instance and version. The one
section that the engine itself writes is `globalstate`: the run state to take up again.
"""

import struct
from dataclasses import dataclass

from protocol.digest import DIGEST_BYTES, digest_of
from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.limits import MAX_DEVICE_BYTES

MAGIC = b"PGFD"
_STREAM = struct.Struct("<4sI")
"""magic, number of sections."""
_SECTION = struct.Struct("<HIIIQ")
"""name bytes, instance, version, payload bytes, XXH3-64 of these four, name and payload."""
_DIGEST_OFFSET = _SECTION.size - DIGEST_BYTES

GLOBAL_STATE = "globalstate"
GLOBAL_STATE_VERSION = 1
_RUN_STATE = struct.Struct("<I100s")
RUN_STATES = frozenset(
    {
        "debug", "inmigrate", "internal-error", "io-error", "paused", "postmigrate", "prelaunch",
        "finish-migrate", "restore-vm", "running", "save-vm", "shutdown", "suspended", "watchdog",
        "guest-panicked", "colo",
    }
)  # fmt: skip
"""The names of QEMU's RunState."""


@dataclass(frozen=True)
class Section:
    """The state of one device: `payload` means what `name` says it means in `version`."""

    name: str
    instance: int
    version: int
    payload: bytes


def encode_sections(sections: list[Section]) -> bytes:
    """All `sections` as one stream of bytes; LocalProtocolError beyond MAX_DEVICE_BYTES."""
    parts = [_STREAM.pack(MAGIC, len(sections))]
    for section in sections:
        name = section.name.encode()
        sizes = (len(name), section.instance, section.version, len(section.payload))
        digest = digest_of(_SECTION.pack(*sizes, 0), _DIGEST_OFFSET, name, section.payload)
        parts += [_SECTION.pack(*sizes, digest), name, section.payload]
    stream = b"".join(parts)
    if len(stream) > MAX_DEVICE_BYTES:
        raise LocalProtocolError(
            f"device state of {len(stream)} bytes, {MAX_DEVICE_BYTES} are allowed"
        )
    return stream


def decode_sections(stream: bytes) -> list[Section]:
    """The sections in `stream`; RemoteProtocolError for whatever is wrong with it."""
    view = memoryview(stream)
    magic, count = _STREAM.unpack(_take(view, 0, _STREAM.size))
    if magic != MAGIC:
        raise RemoteProtocolError(f"not a device state: magic {bytes(magic)!r}")
    sections = []
    offset = _STREAM.size
    for _ in range(count):
        header = _take(view, offset, _SECTION.size)
        name_bytes, instance, version, payload_bytes, digest = _SECTION.unpack(header)
        offset += _SECTION.size
        body = bytes(_take(view, offset, name_bytes + payload_bytes))
        offset += len(body)
        if digest_of(header, _DIGEST_OFFSET, body) != digest:
            raise RemoteProtocolError("device state: a section with a wrong digest")
        name = _decode_name(body[:name_bytes])
        sections.append(Section(name, instance, version, body[name_bytes:]))
    if offset != len(view):
        raise RemoteProtocolError(f"device state: {len(view) - offset} bytes behind the end")
    return sections


def _decode_name(name: bytes) -> str:
    try:
        return name.decode()
    except UnicodeDecodeError:
        raise RemoteProtocolError(f"device state: a section named {name!r}, no UTF-8") from None


def _take(view: memoryview, offset: int, length: int) -> memoryview:
    if offset + length > len(view):
        raise RemoteProtocolError(
            f"device state cut short: {offset + length} bytes wanted, {len(view)} there"
        )
    return view[offset : offset + length]


def encode_global_state(run_state: str) -> Section:
    """The section that carries the guest's run state."""
    name = run_state.encode()
    if len(name) > 99:
        raise LocalProtocolError("runstate name too big")
    payload = _RUN_STATE.pack(len(name) + 1, name)
    return Section(GLOBAL_STATE, 0, GLOBAL_STATE_VERSION, payload)


def decode_global_state(section: Section) -> str:
    """The run state in a `globalstate` section; RemoteProtocolError when it names none."""
    if section.version != GLOBAL_STATE_VERSION or len(section.payload) != _RUN_STATE.size:
        raise RemoteProtocolError(
            f"globalstate version {section.version} with {len(section.payload)} bytes"
        )
    size, padded = _RUN_STATE.unpack(section.payload)
    name: str = padded.split(b"\0", 1)[0].decode(errors="replace")
    if size != len(name.encode()) + 1 or name not in RUN_STATES:
        raise RemoteProtocolError(f"globalstate: unknown run state {name!r}")
    return name
