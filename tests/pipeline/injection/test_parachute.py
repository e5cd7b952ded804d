"""The frame by which a thread finds its own way back, as bytes."""

import struct

import pytest

from pipeline.injection import parachute
from pipeline.injection.ptrace import Registers

AMX_BYTES = 11008
TILES = 3 << 17
FEATURES = 0x602E7 | TILES


def extended(length: int, *, in_use: int) -> bytes:
    """An XSAVE area as ptrace gives it."""
    area = bytearray(length)
    area[464:472] = FEATURES.to_bytes(8, "little")
    area[512:520] = in_use.to_bytes(8, "little")
    return bytes(area)


def packed(area: bytes) -> tuple[bytes, bytes]:
    """The frame for `area`: what leads back, and the area with its marks."""
    data = parachute.pack(1 << 20, 7, Registers(), bytes(8), area)
    assert len(data) <= parachute.length_for(area)
    return data[:320], data[320:]


def test_it_lies_below_what_a_function_may_use() -> None:
    """The 128 bytes below the stack pointer are a function's own: written over, it goes wrong."""
    for stack_pointer in range(1 << 20, (1 << 20) + 64):
        start = parachute.place(stack_pointer, 3000)
        assert start + 3000 <= stack_pointer - 128
        assert start % 64 == 0


@pytest.mark.parametrize(
    ("in_use", "size", "features"),
    [(0x7, 2696, FEATURES & ~TILES), (0x7 | 1 << 18, AMX_BYTES, FEATURES)],
)
def test_tiles_are_given_back_only_to_who_has_them(in_use: int, size: int, features: int) -> None:
    """A frame that is longer than the thread's state: the kernel drops the rest of it."""
    head, area = packed(extended(AMX_BYTES, in_use=in_use))
    assert struct.unpack_from("<IIQI", area, 464) == (0x46505853, size + 4, features, size)
    assert area[size:] == struct.pack("<I", 0x46505845)
    assert struct.unpack_from("<Q", head, 8 + 40 + 8 * 18 + 8 + 8 * 4)[0] == (1 << 20) + 320
    assert head[:8] == (7).to_bytes(8, "little")
