"""Mistake 7: zero detection, and an allocation per page, on the one main thread."""

import tracemalloc
from pathlib import Path

import pytest

from pipeline.config.model import Config
from pipeline.guests.file import FileGuest
from pipeline.progress import Progress
from protocol.limits import PAGE_BYTES
from tests.faults.memories import random_words
from tests.system.migrations import listen, migrate, settings

PAGES = 16_384
BYTES_A_PAGE = 32
"""Marks and indices: 13 B a page at the peak. An object of Python for each takes 36 and more."""
CONSTANT_BYTES = 1 << 18


def bytes_read() -> int:
    """What this process has read from files since it began."""
    return int(Path("/proc/self/io").read_text().split()[1])


@pytest.fixture
def path(folder: Path) -> Path:
    """A file of 64 MiB in which every fourth page is zero."""
    made = folder / "memory"
    content = random_words(4)
    content[3] = 0
    made.write_bytes(content.tobytes() * (PAGES // 4))
    return made


@pytest.mark.timeout(60)
def test_the_coordinator_neither_sees_nor_holds_pages(folder: Path, path: Path) -> None:
    """Page bytes that are read, mapped or kept in the process that has to keep everything going."""
    seen: list[str] = []

    def look(_: Progress) -> None:
        if str(path) in Path("/proc/self/maps").read_text():
            seen.append("mapped")

    config = Config.model_validate(settings({"kind": "file", "path": str(path)}, codec="lz4"))
    guest = FileGuest(path, None)
    guest.can_stop = True  # so that it is scanned between rounds, as a guest that runs is
    with listen(folder) as there:
        uri = there.uri
        tracemalloc.start()
        before = bytes_read()
        result = migrate(config, uri, look, guest=guest)
        read = bytes_read() - before
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        guest.close()
        assert there.code() == 0
    path.unlink()
    assert result.error_desc is None
    assert not seen
    assert peak < PAGES * BYTES_A_PAGE + CONSTANT_BYTES
    assert read < PAGES * PAGE_BYTES // 16
