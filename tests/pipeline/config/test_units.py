"""Sizes: what is read, what is refused, what is shown."""

import re

import pytest

from pipeline.config.units import PATTERN, dump_bytes, format_bytes, parse_bytes


@pytest.mark.parametrize(
    ("text", "count"),
    [
        (0, 0),
        (4096, 4096),
        (-5, -5),
        ("4096", 4096),
        ("17B", 17),
        ("64KiB", 65_536),
        ("64MiB", 67_108_864),
        ("1 GiB", 1 << 30),
        ("1.5GiB", 3 << 29),
        ("2TiB", 2 << 40),
        ("-1KiB", -1024),
    ],
)
def test_sizes_are_read(text: object, count: int) -> None:
    """A unit off by a factor of 1024, or a fraction lost in floating point."""
    assert parse_bytes(text) == count
    assert re.match(PATTERN, str(text))


@pytest.mark.parametrize(
    "value",
    ["64MB", "64mib", "MiB", "", "64 M", "1..5KiB", "64MiB/s", True, 1.5, None, [1], "0.3B"],
)
def test_everything_else_is_refused(value: object) -> None:
    """A decimal unit or a boolean taken for a number of bytes."""
    with pytest.raises(ValueError, match="expected"):
        parse_bytes(value)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0B"),
        (1023, "1023B"),
        (1024, "1KiB"),
        (1536, "1.5KiB"),
        (1 << 30, "1GiB"),
        (5e6, "4.8MiB"),
    ],
)
def test_sizes_are_shown(count: float, text: str) -> None:
    """A size shown in the wrong unit."""
    assert format_bytes(count) == text


@pytest.mark.parametrize("count", [0, 1, 1023, 1024, 1025, 64 << 20, (1 << 40) + 4096])
def test_what_is_dumped_is_read_back_exactly(count: int) -> None:
    """`check` printing a rounded size, so that its output is another configuration."""
    assert parse_bytes(dump_bytes(count)) == count


def test_dump_takes_the_largest_unit_that_divides() -> None:
    """67108864 instead of 64MiB in the output of `check`."""
    assert dump_bytes(64 << 20) == "64MiB"
    assert dump_bytes(1025) == 1025
