"""What the command lines of benchmarks take."""

import argparse

from pipeline.config.units import parse_bytes

MIB = 1 << 20


def count(text: str) -> int:
    """A whole number, at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of 1 or more")
    return int(text)


def memory_bytes(text: str) -> int:
    """Bytes of a size such as 1GiB; whole MiB, as QEMU wants them."""
    try:
        size = parse_bytes(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from error
    if size <= 0 or size % MIB:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number of MiB")
    return size
