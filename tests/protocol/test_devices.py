"""Device sections and the run state in them."""

import struct

import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from protocol import devices
from protocol.devices import (
    RUN_STATES,
    Section,
    decode_global_state,
    decode_sections,
    encode_global_state,
    encode_sections,
)
from protocol.errors import LocalProtocolError, RemoteProtocolError
from tests.protocol.samples import single_bit_flips

U32 = st.integers(0, 2**32 - 1)
SECTIONS = st.lists(st.builds(Section, st.text(max_size=20), U32, U32, st.binary(max_size=50)))
TWO = [Section("clock", 0, 1, b"\1\2\3"), Section("rng", 7, 2, b"")]
STREAM = encode_sections(TWO)
GOLDEN = (
    "5047464402000000 0500000000000100 0000030000005a39 15a9a6aa6fc3636c "
    "6f636b0102030300 0700000002000000 000000004ee4edef 553453b7726e67"
)


def test_golden_stream() -> None:
    """A change of the layout or the digest that nobody meant to make."""
    assert STREAM.hex(" ", -8) == GOLDEN
    assert decode_sections(STREAM) == TWO


@given(SECTIONS)
def test_any_sections_come_across(sections: list[Section]) -> None:
    """A section lost, shortened or taken for another."""
    assert decode_sections(encode_sections(sections)) == sections


def test_every_cut_and_every_flipped_bit_is_refused() -> None:
    """A part of the stream that no digest covers, such as a section's version."""
    cuts = [STREAM[:end] for end in range(len(STREAM))]
    for damaged in [*cuts, *single_bit_flips(STREAM), STREAM + b"\0"]:
        with pytest.raises(RemoteProtocolError):
            decode_sections(damaged)


@given(st.binary(max_size=100), st.integers(0, 2**32 - 1))
def test_garbage_is_a_remote_protocol_error(garbage: bytes, count: int) -> None:
    """A count or a length that is believed, or an exception of another kind."""
    for stream in (garbage, struct.pack("<4sI", b"PGFD", count or 1) + garbage):
        with pytest.raises(RemoteProtocolError):
            decode_sections(stream)


def test_a_name_that_is_no_utf8_is_refused() -> None:
    """Two devices whose names become one by replacement."""
    sizes = struct.pack("<HIII", 1, 0, 1, 0)
    digest = struct.pack("<Q", xxhash.xxh3_64_intdigest(sizes + b"\xff"))
    with pytest.raises(RemoteProtocolError, match="no UTF-8"):
        decode_sections(struct.pack("<4sI", b"PGFD", 1) + sizes + digest + b"\xff")


def test_too_much_device_state_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """A section that fills the destination's memory."""
    monkeypatch.setattr(devices, "MAX_DEVICE_BYTES", len(STREAM))
    assert encode_sections(TWO) == STREAM
    with pytest.raises(LocalProtocolError, match=f"{len(STREAM)} are allowed"):
        encode_sections([*TWO, Section("more", 0, 1, b"")])


@pytest.mark.parametrize("name", sorted(RUN_STATES))
def test_every_run_state_comes_across(name: str) -> None:
    """A run state that the destination does not know."""
    assert decode_global_state(encode_global_state(name)) == name


def test_golden_global_state() -> None:
    """A section that is not `globalstate` version 1 as QEMU writes it."""
    payload = struct.pack("<I", 8) + b"running".ljust(100, b"\0")
    assert encode_global_state("running") == Section("globalstate", 0, 1, payload)


def test_a_name_has_99_bytes_at_most() -> None:
    """A name that leaves no room for its NUL."""
    assert len(encode_global_state("x" * 99).payload) == 104
    with pytest.raises(LocalProtocolError, match="runstate name too big"):
        encode_global_state("x" * 100)


def _state(size: int, name: bytes, version: int = 1) -> Section:
    return Section("globalstate", 0, version, struct.pack("<I100s", size, name))


@pytest.mark.parametrize(
    ("section", "found"),
    [
        (_state(1, b""), "unknown run state ''"),
        (_state(0, b""), "unknown run state ''"),
        (_state(6, b"hello"), "unknown run state 'hello'"),
        (_state(7, b"running"), "unknown run state 'running'"),
        (_state(2**32 - 1, b"running"), "unknown run state 'running'"),
        (_state(101, b"x" * 100), "unknown run state 'xxx"),
        (_state(3, b"\xff\xfe"), "unknown run state"),
        (_state(8, b"running", version=2), "globalstate version 2 with 104 bytes"),
        (Section("globalstate", 0, 1, b"running"), "globalstate version 1 with 7 bytes"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_wrong_global_state_is_refused_by_name(section: Section, found: str) -> None:
    """A guest started in a state that nobody told."""
    with pytest.raises(RemoteProtocolError, match=found):
        decode_global_state(section)
