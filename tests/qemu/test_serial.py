"""What is heard of a guest, and that it is heard whole."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.qemu.serial import Serial

PATIENCE_S = 5.0


@contextmanager
def said(*pieces: bytes) -> Iterator[Serial]:
    """A port at which that was said, and which has closed."""
    reading, writing = os.pipe()
    serial = Serial(os.fdopen(reading, "rb", buffering=0))
    for piece in pieces:
        os.write(writing, piece)
    os.close(writing)
    try:
        serial.join(PATIENCE_S)
        yield serial
    finally:
        serial.close()


def test_every_kind_of_line(folder: Path) -> None:
    """Lines that are cut, taken for others, or lost because they came together."""
    with said(
        b"SeaBIOS\nup 000", b"04000\r\nt 0000", b"0009\nt 0000000A 4.5\nbad 00", b"01\n"
    ) as port:
        assert port.is_up
        assert [line.counter for line in port.beats] == [9, 10]
        assert port.counter == 10
        assert port.bad == ["0001"]
        assert [line.text for line in port.lines][:2] == ["SeaBIOS", "up 00004000"]
        times = [line.at for line in port.lines]
        assert times == sorted(times)


@pytest.mark.parametrize("cut", range(12))
def test_a_gap_in_the_middle_of_a_line(folder: Path, cut: int) -> None:
    """A tick that is missed, because half of its line was said by either machine."""
    line = b"t 0000000B\n"
    with (
        said(b"up 1\nt 0000000A\n" + line[:cut]) as here,
        said(line[cut:] + b"t 0000000C\n") as there,
    ):
        seconds, counted = here.gap(there)
        assert (counted, seconds >= 0) == (1, True)


def test_one_that_closes_is_not_waited_for(folder: Path) -> None:
    """A test that waits for a machine that is gone, and does not say what it said last."""
    with said(b"up 1\nlast words\n") as port, pytest.raises(AssertionError, match="last words"):
        port.wait("t", lambda: port.counter > 0, 60)
