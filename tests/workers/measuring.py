"""How much memory a piece of code takes, by Python's allocators and by those of C."""

import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def allocates_at_most(limit_bytes: int) -> Iterator[None]:
    """AssertionError where more than `limit_bytes` were held at once, touched or not."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = _peak_bytes()
    tracemalloc.start()
    try:
        yield
        traced = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert traced < limit_bytes
    assert _peak_bytes() - before < limit_bytes


def _peak_bytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024
