"""Data frames that are damaged, or well sealed and still wrong."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import FrameDamaged, RemoteProtocolError
from protocol.frame_opening import decode_batch, decode_hello
from protocol.frames import DELTAS, HEADER, FrameType, encode_batch, encode_hello
from protocol.limits import PAGE_BYTES
from tests.protocol.samples import (
    LIMITS,
    OTHER_SESSION,
    SESSION,
    flipped,
    forge_frame,
    make_batch,
    single_bit_flips,
)
from tests.protocol.test_frames import ANY, batches

PAYLOAD = bytes(make_batch().payload)
HEAD = encode_batch(make_batch(), content_digest=True)


def _refused(head: bytes, payload: bytes, found: str) -> None:
    """Refused for what it says, not for its digest."""
    with pytest.raises(RemoteProtocolError, match=found) as caught:
        decode_batch(head, payload, LIMITS)
    assert not isinstance(caught.value, FrameDamaged)


def test_every_flipped_bit_is_found() -> None:
    """A byte that no digest covers."""
    for head in single_bit_flips(HEAD):
        with pytest.raises(FrameDamaged):
            decode_batch(head, PAYLOAD, LIMITS)
    for payload in single_bit_flips(PAYLOAD):
        with pytest.raises(FrameDamaged):
            decode_batch(HEAD, payload, LIMITS)


def test_every_flipped_bit_of_a_head_is_found_without_content_digest() -> None:
    """Catches: `verify: off` that lets a page index change on the way."""
    for head in single_bit_flips(encode_batch(make_batch(), content_digest=False)):
        with pytest.raises(RemoteProtocolError):
            decode_batch(head, PAYLOAD, LIMITS)


@given(batches(), st.data())
def test_damage_to_any_batch_is_a_remote_protocol_error(batch: Any, data: st.DataObject) -> None:  # noqa: ANN401
    """A combination of fields in which damage raises something else, or nothing."""
    head, payload = encode_batch(batch, content_digest=True), bytes(batch.payload)
    bit = data.draw(st.integers(0, (len(head) + len(payload)) * 8 - 1))
    damaged = flipped(head + payload, bit)
    with pytest.raises(RemoteProtocolError):
        decode_batch(damaged[: len(head)], damaged[len(head) :], ANY)


@given(st.binary(max_size=200), st.binary(max_size=50))
def test_garbage_is_a_remote_protocol_error(head: bytes, payload: bytes) -> None:
    """Struct, numpy or index errors that kill a worker instead of the session."""
    sealed = forge_frame(head, payload) if len(head) >= HEADER.size else head
    for candidate in (head, sealed):
        with pytest.raises(RemoteProtocolError):
            decode_batch(candidate, payload, LIMITS)


FIELDS = {
    "block": st.integers(0, 2**16 - 1),
    "codec": st.integers(0, 255),
    "flags": st.integers(0, 2**16 - 1),
    "pages": st.integers(0, 2**32 - 1),
    "data_pages": st.integers(0, 2**32 - 1),
    "payload_bytes": st.integers(0, 2**32 - 1),
}


@given(st.fixed_dictionaries({}, optional=FIELDS))
def test_a_forged_header_is_refused_or_whole(changes: dict[str, int]) -> None:
    """A number from the peer, under a right digest, that breaks the reader."""
    head = forge_frame(HEAD, PAYLOAD, **changes)
    try:
        batch = decode_batch(head, PAYLOAD, LIMITS)
    except FrameDamaged:
        pytest.fail("the digest is right")
    except RemoteProtocolError:
        return
    assert (len(batch.pages), batch.data_pages) == (3, 2)


def test_a_cut_frame_is_refused() -> None:
    """Tables read beyond the end of a frame, even one with a right digest."""
    for end in range(len(HEAD)):
        with pytest.raises(RemoteProtocolError):
            decode_batch(HEAD[:end], PAYLOAD, LIMITS)
    for end in range(HEADER.size, len(HEAD)):
        _refused(forge_frame(HEAD[:end], PAYLOAD), PAYLOAD, "declares .* has")
    for end in range(len(PAYLOAD)):
        _refused(forge_frame(HEAD, PAYLOAD[:end]), PAYLOAD[:end], "declares .* has")


def test_junk_behind_is_refused() -> None:
    """Bytes that nobody declared and that nobody reads."""
    _refused(forge_frame(HEAD + b"\0", PAYLOAD), PAYLOAD, "declares .* has")
    _refused(forge_frame(HEAD, PAYLOAD + b"\0"), PAYLOAD + b"\0", "declares .* has")


@pytest.mark.parametrize(
    ("head", "payload"),
    [(HEAD + bytes(LIMITS.head_bytes), PAYLOAD), (HEAD, bytes(LIMITS.payload_bytes + 1))],
)
def test_a_frame_too_long_is_refused(head: bytes, payload: bytes) -> None:
    """More than the session allows, taken for damage and asked for again."""
    _refused(forge_frame(head, payload), payload, "too long")


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"magic": b"PGFC"}, "not a pageferry frame"),
        ({"version": 2}, "wrong version 2 .* speaks 1"),
        ({"version": 0}, "wrong version 0 .* speaks 1"),
        ({"type": 0}, "type 0 where BATCH"),
        ({"type": FrameType.HELLO}, "type 1 where BATCH"),
        ({"flags": 11}, "unknown flags 0xb"),
        ({"flags": 7}, "declares"),
        ({"session": OTHER_SESSION}, "another session"),
        ({"block": 2}, "unknown block 2, there are 2"),
        ({"block": 1}, "index 99 outside its block of 7 pages"),
        ({"codec": 0}, "unknown codec 0"),
        ({"codec": 5}, "unknown codec 5"),
        ({"pages": 4}, "declares"),
        ({"pages": 2**32 - 1}, "declares"),
        ({"data_pages": 1}, "declares"),
        ({"payload_bytes": 0}, "declares"),
    ],
    ids=lambda value: str(value),
)
def test_a_wrong_field_is_refused_by_name(changes: dict[str, Any], found: str) -> None:
    """A check left out, or one that does not say what it found."""
    _refused(forge_frame(HEAD, PAYLOAD, **changes), PAYLOAD, found)


def _array(*values: int, dtype: type[np.generic]) -> np.ndarray[Any, Any]:
    return np.array(values, dtype)


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"pages": _array(3, 4, 100, dtype=np.uint32)}, "index 100 outside its block of 100"),
        ({"pages": _array(3, 3, 9, dtype=np.uint32)}, "do not rise"),
        ({"pages": _array(4, 3, 9, dtype=np.uint32)}, "do not rise"),
        ({"pages": _array(3, 2**32 - 1, 9, dtype=np.uint32)}, "do not rise"),
        ({"kinds": _array(2, 0, 2, dtype=np.uint8)}, "2 data pages declared"),
        ({"kinds": _array(2, 3, 2, dtype=np.uint8)}, "2 data pages declared"),
        ({"kinds": _array(2, 4, 2, dtype=np.uint8)}, "2 data pages declared"),
        (
            {"kinds": _array(2, 1, 3, dtype=np.uint8), "hashes": _array(7, dtype=np.uint64)},
            "1 data pages declared",
        ),
        (
            {"kinds": _array(1, 1, 1, dtype=np.uint8), "hashes": _array(dtype=np.uint64)},
            "payload without data pages",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_wrong_tables_are_refused_by_name(changes: dict[str, Any], found: str) -> None:
    """A page written outside its block, or twice, or of a kind that nobody knows."""
    head = encode_batch(make_batch(**changes), content_digest=True)
    _refused(head, PAYLOAD, found)


@pytest.mark.parametrize("data_pages", [1, 3])
def test_wrong_counts_are_refused(data_pages: int) -> None:
    """A declared count that is believed over the kinds themselves."""
    head = encode_batch(make_batch(hashed=False), content_digest=False)
    _refused(forge_frame(head, data_pages=data_pages), PAYLOAD, f"{data_pages} data pages declared")


def test_an_unknown_kind_is_not_made_up_for_by_a_wrong_count() -> None:
    """Two mistakes that cancel out, and a page of a kind that nobody writes."""
    batch = make_batch(hashed=False, kinds=_array(2, 4, 2, dtype=np.uint8))
    head = forge_frame(encode_batch(batch, content_digest=False), data_pages=3)
    _refused(head, PAYLOAD, "3 data pages declared")


@pytest.mark.parametrize(
    ("count", "size", "found"),
    [
        (1, 0, "0 bytes of deltas"),
        (1, PAGE_BYTES, "4096 bytes of deltas"),
        (1, 2**32 - 1, "4294967295 bytes of deltas"),
        (2, 10, "2 deltas declared"),
        (0, 10, "0 deltas declared"),
    ],
)
def test_wrong_deltas_are_refused_by_name(count: int, size: int, found: str) -> None:
    """A section that is unpacked behind the slot; deltas that nobody counted."""
    kinds = _array(2, 1, 3, dtype=np.uint8)
    head = encode_batch(make_batch(hashed=False, kinds=kinds, delta_bytes=10), content_digest=False)
    assert decode_batch(head, PAYLOAD, LIMITS).delta_pages == 1
    forged = head[: HEADER.size] + DELTAS.pack(count, size) + head[HEADER.size + DELTAS.size :]
    _refused(forge_frame(forged), PAYLOAD, found)


def test_more_pages_than_a_batch_has_are_refused() -> None:
    """More pages than a slot has room for, in a head that is short enough."""
    count = LIMITS.batch_pages + 1
    batch = make_batch(
        hashed=False,
        pages=np.arange(count, dtype=np.uint32),
        kinds=np.full(count, 2, np.uint8),
    )
    _refused(encode_batch(batch, content_digest=True), PAYLOAD, "9 pages, 8 make a batch")


@pytest.mark.parametrize(
    ("head", "found"),
    [
        (encode_hello(SESSION, 1)[:-1], "damaged frame"),
        (encode_hello(OTHER_SESSION, 1), "another session"),
        (forge_frame(encode_hello(SESSION, 1), version=9), "wrong version 9"),
        (forge_frame(encode_hello(SESSION, 1), type=2), "type 2 where HELLO"),
        (forge_frame(encode_hello(SESSION, 1), flags=8), "unknown flags 0x8"),
        (forge_frame(encode_hello(SESSION, 1), flags=4), "a hello with flags 0x4"),
        (forge_frame(encode_hello(SESSION, 1) + bytes(8), flags=4), "a hello with flags 0x4"),
        (forge_frame(encode_hello(SESSION, 1), pages=1), "declares"),
        (forge_frame(encode_hello(SESSION, 1) + b"\0"), "declares"),
        (forge_frame(bytes(HEADER.size)), "not a pageferry frame"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_wrong_hello_is_refused_by_name(head: bytes, found: str) -> None:
    """A data connection of somebody else's that is let in."""
    with pytest.raises(RemoteProtocolError, match=found):
        decode_hello(head, SESSION)


def test_every_flipped_bit_of_a_hello_is_found() -> None:
    """A worker number that changed on the way."""
    for head in single_bit_flips(encode_hello(SESSION, 1)):
        with pytest.raises(FrameDamaged):
            decode_hello(head, SESSION)
