"""Codecs: what comes out is what went in, and nothing is believed of what a peer packed."""

import random

import lz4.block
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from zlib_ng import zlib_ng

from protocol.errors import RemoteProtocolError
from protocol.frames import CodecId
from protocol.limits import PAGE_BYTES
from tests.workers.measuring import allocates_at_most
from workers import codecs
from workers.codecs import CODECS, compress, decompress

NAMES = sorted(CODECS)
PACKERS = ["lz4", "zlib", "zstd"]
RANDOM = random.Random(1)
TEXT = bytes(RANDOM.choices(b"ab ", k=2 * PAGE_BYTES))
NOISE = RANDOM.randbytes(2 * PAGE_BYTES)
ZEROS_100_MIB = bytes(100 << 20)

pages = st.lists(
    st.sampled_from([bytes(PAGE_BYTES), TEXT[:PAGE_BYTES], NOISE[:PAGE_BYTES]])
    | st.binary(max_size=64).map(lambda seed: (seed + b"\1") * (PAGE_BYTES // (len(seed) + 1))),
    max_size=6,
).map(b"".join)


def unpacked(codec: CodecId, data: bytes, size: int) -> bytes:
    """What `data` unpacks to, in a target with a guard behind it that must stay as it is."""
    target = bytearray(size + 16)
    target[size:] = b"G" * 16
    try:
        decompress(codec, data, memoryview(target)[:size])
    finally:
        assert target[size:] == b"G" * 16
    return bytes(target[:size])


@settings(deadline=None, max_examples=60)
@given(data=pages, name=st.sampled_from(NAMES), level=st.integers(0, 9))
def test_what_went_in_comes_out(data: bytes, name: str, level: int) -> None:
    """A codec, a level or a mixture that changes bytes; the wrong codec named in the frame."""
    codec, packed = compress(name, memoryview(data), level)
    assert len(packed) <= len(data)
    assert unpacked(codec, bytes(packed), len(data)) == data


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("data", [NOISE, b""])
def test_what_does_not_shrink_travels_raw_and_uncopied(name: str, data: bytes) -> None:
    """Noise that grows on the wire, or costs a copy of every page that does not compress."""
    view = memoryview(data)
    codec, packed = compress(name, view, 1)
    assert codec is CodecId.NONE
    assert packed is view


@pytest.mark.parametrize("name", PACKERS)
def test_what_shrinks_is_named_by_its_codec(name: str) -> None:
    """A codec that never compresses, and so looks right."""
    codec, packed = compress(name, TEXT, 1)
    assert codec is CODECS[name].id
    assert len(packed) < len(TEXT) * 3 // 4


def test_levels_reach_the_codec() -> None:
    """A level that is taken and ignored: zlib's 0 stores."""
    assert compress("zlib", TEXT, 0)[0] is CodecId.NONE
    for name in ("zlib", "zstd"):
        fast, small = (len(compress(name, TEXT, level)[1]) for level in (1, 9))
        assert small < fast, name


def test_zlib_is_zlib_by_either_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer without ISA-L that cannot read what one with it has packed, or the other way round."""
    _, by_isal = compress("zlib", TEXT, 1)
    monkeypatch.setattr(codecs, "isal_zlib", None)
    _, by_zlib_ng = compress("zlib", TEXT, 1)
    assert bytes(by_isal) != bytes(by_zlib_ng)
    assert unpacked(CodecId.ZLIB, bytes(by_isal), len(TEXT)) == TEXT
    monkeypatch.undo()
    assert unpacked(CodecId.ZLIB, bytes(by_zlib_ng), len(TEXT)) == TEXT


def test_zstd_level_0_is_its_default() -> None:
    """Level 0 taken as zlib takes it: nothing would be compressed."""
    assert bytes(compress("zstd", TEXT, 0)[1]) == bytes(compress("zstd", TEXT, 3)[1])


@pytest.mark.parametrize("name", NAMES)
def test_every_truncation_is_the_peers_fault(name: str) -> None:
    """A cut payload that leaves the slot's old bytes in the guest's memory."""
    packed = bytes(CODECS[name].compress(TEXT, 1))
    for end in range(len(packed)):
        with pytest.raises(RemoteProtocolError):
            unpacked(CODECS[name].id, packed[:end], len(TEXT))


@pytest.mark.parametrize("name", PACKERS)
def test_data_behind_the_end_is_refused(name: str) -> None:
    """Bytes that no digest covers and nobody looks at; a second stream behind the first."""
    packed = bytes(CODECS[name].compress(TEXT, 1))
    empty_zstd = zstandard.ZstdCompressor().compress(b"")
    skippable_zstd = b"\x50\x2a\x4d\x18\x04\0\0\0junk"
    for junk in (b"\0", b"\x28\xb5\x2f", packed, packed[:20], empty_zstd, skippable_zstd):
        with pytest.raises(RemoteProtocolError):
            unpacked(CODECS[name].id, packed + junk, len(TEXT))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("wrong", [-1, 1, -len(TEXT)])
def test_another_size_than_the_header_implies_is_refused(name: str, wrong: int) -> None:
    """Pages that are shifted by a byte, or a tail that keeps what the slot held before."""
    packed = bytes(CODECS[name].compress(TEXT, 1))
    with pytest.raises(RemoteProtocolError, match=name):
        unpacked(CODECS[name].id, packed, len(TEXT) + wrong)


@settings(deadline=None, max_examples=100)
@given(data=st.binary(max_size=200), codec=st.sampled_from(list(CodecId)))
def test_arbitrary_bytes_are_the_peers_fault(data: bytes, codec: CodecId) -> None:
    """A library's own error that ends the worker as if it were our bug."""
    with pytest.raises(RemoteProtocolError):
        unpacked(codec, data, PAGE_BYTES)


BOMBS = {
    "zlib": (CodecId.ZLIB, zlib_ng.compress(ZEROS_100_MIB, 9)),
    "zstd that declares its size": (
        CodecId.ZSTD,
        zstandard.ZstdCompressor().compress(ZEROS_100_MIB),
    ),
    "zstd that does not": (
        CodecId.ZSTD,
        zstandard.ZstdCompressor(write_content_size=False).compress(ZEROS_100_MIB),
    ),
    "zstd with a window of 64 MiB": (
        CodecId.ZSTD,  # no size declared, window descriptor, one raw block of a page
        bytes.fromhex("28b52ffd 00 80 018000") + bytes(PAGE_BYTES),
    ),
    "zstd that declares 1 TiB": (
        CodecId.ZSTD,
        bytes.fromhex("28b52ffd e0 0000000000010000 0300 00 00"),
    ),
    "lz4": (CodecId.LZ4, lz4.block.compress(ZEROS_100_MIB, store_size=False)),
    "lz4 with 1 GiB in front": (CodecId.LZ4, b"\0\0\0\x40" + lz4.block.compress(b"a" * 99)[4:]),
}


@pytest.mark.parametrize("size", [0, PAGE_BYTES, 64 * PAGE_BYTES])
@pytest.mark.parametrize("kind", BOMBS)
def test_a_bomb_is_refused_before_it_goes_off(kind: str, size: int) -> None:
    """Memory that a peer takes from us with a few bytes."""
    codec, bomb = BOMBS[kind]
    target = memoryview(bytearray(size))
    with allocates_at_most(4 << 20), pytest.raises(RemoteProtocolError, match=codec.name.lower()):
        decompress(codec, bomb, target)


def test_a_zstd_frame_without_declared_size_is_taken() -> None:
    """A peer that compresses as a stream, refused for the header that it leaves out."""
    packed = zstandard.ZstdCompressor(write_content_size=False).compress(TEXT)
    assert unpacked(CodecId.ZSTD, packed, len(TEXT)) == TEXT


def test_the_table_names_each_codec_of_the_wire_once() -> None:
    """A codec that one end compresses with and the other cannot look up."""
    assert sorted(codec.id for codec in CODECS.values()) == sorted(CodecId)
