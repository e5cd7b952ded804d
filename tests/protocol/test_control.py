"""Control messages: what is let in and what is not."""

import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import limits
from protocol.control import AnyMessage, Holes, Mismatch, decode_message, encode_message
from protocol.errors import RemoteProtocolError
from tests.protocol.samples import BY_NAME, MESSAGES, single_bit_flips


def _fields(name: str) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.msgpack.decode(encode_message(BY_NAME[name]))
    return fields


def _refused(fields: object) -> None:
    with pytest.raises(RemoteProtocolError, match="malformed control message"):
        decode_message(msgspec.msgpack.encode(fields))


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: type(m).__name__)
def test_each_round_trips(message: AnyMessage) -> None:
    """A field that is lost, or a sample that its own limits refuse."""
    arrived = decode_message(memoryview(encode_message(message)))
    assert arrived == message
    assert type(arrived) is type(message)


def test_golden_applied() -> None:
    """Another encoding, order or tag on the wire."""
    golden = (
        "85a474797065a74170706c696564a373657103ad6465636f6d70726573735f6e7304"
        "a877726974655f6e7305aa756e636f6d706172656406"
    )
    assert encode_message(BY_NAME["Applied"]).hex() == golden


BLOCK = {"name": "ram", "pages": 1}
DISK = {"pages": 1, "base": None}
TOO_LONG = "x" * 4097
OUT_OF_RANGE: list[tuple[str, str, Any]] = [
    ("Hello", "name", "x" * 256),
    ("Hello", "kind", "x" * 33),
    ("Hello", "codec", "x" * 33),
    ("Hello", "verify", "x" * 33),
    ("Hello", "blocks", []),
    ("Hello", "blocks", [BLOCK] * (limits.MAX_BLOCKS + 1)),
    ("Hello", "disks", [DISK] * (limits.MAX_DISKS + 1)),
    ("Hello", "disks", [{**DISK, "pages": 0}]),
    ("Hello", "disks", [{**DISK, "pages": limits.MAX_BLOCK_PAGES + 1}]),
    ("Hello", "disks", [{**DISK, "base": -1}]),
    ("Hello", "disks", [{**DISK, "path": "/etc/shadow"}]),
    ("Hello", "blocks", [{**BLOCK, "name": ""}]),
    ("Hello", "blocks", [{**BLOCK, "name": "x" * 256}]),
    ("Hello", "blocks", [{**BLOCK, "pages": 0}]),
    ("Hello", "blocks", [{**BLOCK, "pages": limits.MAX_BLOCK_PAGES + 1}]),
    ("Hello", "blocks", [{**BLOCK, "more": 1}]),
    ("Hello", "batch_pages", 0),
    ("Hello", "batch_pages", limits.MAX_BATCH_PAGES + 1),
    ("Hello", "connections", 0),
    ("Hello", "connections", limits.MAX_ENDPOINTS + 1),
    ("Welcome", "endpoints", []),
    ("Welcome", "endpoints", [""]),
    ("Welcome", "endpoints", ["x" * 513]),
    ("Welcome", "endpoints", ["x"] * (limits.MAX_ENDPOINTS + 1)),
    ("Welcome", "window", 0),
    ("Welcome", "window", limits.MAX_WINDOW + 1),
    ("Holes", "block", -1),
    ("Holes", "block", limits.MAX_BLOCKS + limits.MAX_DISKS),
    ("Holes", "extents", bytes(16 * (limits.EXTENTS_A_MESSAGE + 1))),
    ("Holes", "extents", bytes(15)),
    ("RoundStart", "round_no", 0),
    ("RoundStart", "round_no", 2**32),
    ("RoundStart", "first_seq", -1),
    ("RoundStart", "first_seq", 2**63),
    ("Applied", "seq", -1),
    ("Applied", "seq", 2**64 - 1),
    ("Applied", "write_ns", -1),
    ("Redo", "seq", 2**63),
    ("Redo", "reason", TOO_LONG),
    ("Verify", "digests", [-1]),
    ("Verify", "digests", [0] * (limits.MAX_BLOCKS + limits.MAX_DISKS + 1)),
    ("Mismatch", "block", limits.MAX_BLOCKS + limits.MAX_DISKS),
    ("Mismatch", "pages", bytes(4 * (limits.PAGES_A_MESSAGE + 1))),
    ("Mismatch", "pages", bytes(3)),
    ("Verified", "mismatches", -1),
    ("Devices", "data", bytes(limits.DEVICE_PIECE_BYTES + 1)),
    ("Ready", "load_ms", -0.1),
    ("Ready", "load_ms", math.nan),
    ("Ready", "load_ms", math.inf),
    ("Started", "since_ms", math.inf),
    ("NotStarted", "reason", TOO_LONG),
    ("Cancel", "reason", TOO_LONG),
    ("Failed", "reason", TOO_LONG),
]


@pytest.mark.parametrize(("name", "field", "value"), OUT_OF_RANGE)
def test_out_of_range_is_refused(name: str, field: str, value: object) -> None:
    """A number or a length from the peer that is believed."""
    _refused({**_fields(name), field: value})


WIDEST: list[tuple[str, str, Any]] = [
    ("Hello", "blocks", [{**BLOCK, "pages": limits.MAX_BLOCK_PAGES}] * limits.MAX_BLOCKS),
    ("Hello", "batch_pages", limits.MAX_BATCH_PAGES),
    ("Welcome", "window", limits.MAX_WINDOW),
    ("Holes", "extents", bytes(16 * limits.EXTENTS_A_MESSAGE)),
    ("Applied", "seq", 2**63 - 1),
    ("Verify", "digests", [2**64 - 1] * limits.MAX_BLOCKS),
    ("Mismatch", "pages", bytes(4 * limits.PAGES_A_MESSAGE)),
    ("Devices", "data", bytes(limits.DEVICE_PIECE_BYTES)),
]


@pytest.mark.parametrize(("name", "field", "value"), WIDEST)
def test_the_limit_itself_is_let_in(name: str, field: str, value: object) -> None:
    """A limit that is one short, or a message that no envelope has room for."""
    body = msgspec.msgpack.encode({**_fields(name), field: value})
    assert msgspec.to_builtins(getattr(decode_message(body), field), builtin_types=[bytes]) == value
    assert len(body) + 48 <= limits.MAX_CONTROL_BYTES


@pytest.mark.parametrize("wrong", [None, True, "1", 1.5, [1], {"a": 1}, b"\0"], ids=repr)
@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: type(m).__name__)
def test_a_wrong_type_is_refused(message: AnyMessage, wrong: object) -> None:
    """Lax decoding that turns one type into another."""
    fields = _fields(type(message).__name__)
    for field, value in fields.items():
        if type(value) is not type(wrong):
            _refused({**fields, field: wrong})


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: type(m).__name__)
def test_fields_unknown_or_missing_are_refused(message: AnyMessage) -> None:
    """A message of another version that is half understood."""
    fields = _fields(type(message).__name__)
    _refused({**fields, "more": 1})
    for field in fields:
        _refused({name: value for name, value in fields.items() if name != field})


@pytest.mark.parametrize("body", [None, 1, [], {}, {"type": "Message"}, {"type": 1}], ids=repr)
def test_what_is_no_message_is_refused(body: object) -> None:
    """A tag that nobody knows, or none."""
    _refused(body)


def test_text_that_is_no_utf8_is_refused() -> None:
    """A UnicodeDecodeError, which msgspec does not count among its own."""
    body = encode_message(BY_NAME["Failed"]).replace(b"no room", b"no\xff\xfe ro")
    with pytest.raises(RemoteProtocolError):
        decode_message(body)


@given(st.binary(max_size=300))
def test_garbage_is_a_remote_protocol_error(garbage: bytes) -> None:
    """An exception of another kind that ends the process instead of the session."""
    with pytest.raises(RemoteProtocolError):
        decode_message(garbage)


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: type(m).__name__)
def test_damage_is_a_message_or_a_remote_protocol_error(message: AnyMessage) -> None:
    """The same for what is nearly a message: bits flipped, bytes cut off."""
    body = encode_message(message)
    for damaged in [*single_bit_flips(body), *(body[:end] for end in range(len(body)))]:
        try:
            arrived = decode_message(damaged)
        except RemoteProtocolError:
            continue
        assert arrived != message


def test_deep_nesting_is_refused() -> None:
    """A message of brackets that exhausts the stack."""
    with pytest.raises(RemoteProtocolError):
        decode_message(b"\x81\xa4name" + b"\x91" * 100_000)


def test_half_an_item_is_not_built_here_either() -> None:
    """Our own slip in packing, at the end that made it."""
    with pytest.raises(ValueError, match="no whole number of 16"):
        Holes(block=0, extents=bytes(8))
    with pytest.raises(ValueError, match="no whole number of 4"):
        Mismatch(block=0, pages=bytes(2))
