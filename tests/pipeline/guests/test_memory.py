"""Memory files: made to fit, never truncated under somebody, holes kept."""

import mmap
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pipeline.guests.content import PAGE_WORDS
from pipeline.guests.memory import (
    anonymous_memory,
    make_file,
    named_memory,
    remove_file,
)
from protocol.errors import ConfigError, GuestError
from tests.pipeline.guests.helpers import memory_of, open_files, python
from tests.pipeline.holding import HOLDS


def test_anonymous_memory_is_private_and_of_its_size() -> None:
    """Guest memory that every user may open by /proc/PID/fd."""
    fd = anonymous_memory(8192)
    status = os.fstat(fd)
    os.close(fd)
    assert (status.st_mode & 0o777, status.st_size) == (0o600, 8192)


@pytest.fixture(name="limited")
def _limited() -> Iterator[None]:
    """No file of this process may be longer than 1 MiB."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("limited")
def test_memory_that_cannot_be_had_is_one_line() -> None:
    """A traceback, and a descriptor left open, for a size that the kernel refuses."""
    before = open_files()
    with pytest.raises(GuestError, match="memory of 2097152 bytes: File too large"):
        anonymous_memory(2 << 20)
    assert open_files() == before


@pytest.mark.parametrize("size", [0, 4096, 12288])
def test_a_file_is_made_to_fit_and_cleared_where_asked(tmp_path: Path, size: int) -> None:
    """Bytes of before that show through, or are lost where they were to be kept."""
    path = tmp_path / "a"
    path.write_bytes(b"x" * size)
    for cleared, kept in ((False, min(size, 8192)), (True, 0)):
        fd = named_memory(path, 8192, cleared=cleared)
        os.close(fd)
        assert path.read_bytes() == b"x" * kept + bytes(8192 - kept)


def test_a_mapped_file_is_not_truncated(tmp_path: Path) -> None:
    """The mapper would die of SIGBUS."""
    path = tmp_path / "a"
    path.write_bytes(b"x" * 8192)
    with python(HOLDS, str(path), "wm") as (mapper, _):
        for size, cleared in ((4096, False), (8192, True), (12288, False)):
            with pytest.raises(ConfigError, match=f"process {mapper.pid} has it mapped"):
                named_memory(path, size, cleared=cleared)
        make_file(path)
        fd = named_memory(path, 8192, cleared=False)
        os.close(fd)
    assert path.read_bytes() == b"x" * 8192


def test_a_mapping_of_this_process_counts(tmp_path: Path) -> None:
    """Our own mapping that is overlooked."""
    path = tmp_path / "a"
    path.write_bytes(bytes(4096))
    for access in (mmap.ACCESS_WRITE, mmap.ACCESS_READ):
        with (
            path.open("r+b") as file,
            mmap.mmap(file.fileno(), 0, access=access),
            pytest.raises(ConfigError, match=f"process {os.getpid()} has it mapped"),
        ):
            named_memory(path, 8192, cleared=False)


@pytest.mark.usefixtures("limited")
def test_a_file_that_cannot_be_made_to_fit_is_told(tmp_path: Path) -> None:
    """A guest that is said to have room, and has none."""
    make_file(tmp_path / "a")
    with pytest.raises(ConfigError, match="a: 2097152 bytes: File too large"):
        named_memory(tmp_path / "a", 2 << 20, cleared=False)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    """Memory that lands in a pipe; a folder; a folder that is not there."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="not a file that memory can land in"):
        named_memory(tmp_path / "pipe", 4096, cleared=False)
    with pytest.raises(ConfigError, match="Is a directory"):
        named_memory(tmp_path, 4096, cleared=False)
    with pytest.raises(ConfigError, match="No such file"):
        named_memory(tmp_path / "x" / "y", 4096, cleared=False)
    assert (tmp_path / "pipe").exists()


def test_runs_of_pages_land_where_they_belong() -> None:
    """A run that begins or ends one page off; a zero page that is written over another."""
    with memory_of(16) as memory:
        pages = np.zeros((10, PAGE_WORDS), np.uint64)
        pages[[0, 1, 4, 9], 7] = [1, 2, 3, 4]
        memory.write(3, pages)
        assert memory.words[:, 7].tolist() == [0, 0, 0, 1, 2, 0, 0, 3, 0, 0, 0, 0, 4, 0, 0, 0]
    with memory_of(16) as memory:
        memory.write(3, pages)
        assert os.fstat(memory.fd).st_blocks == 4 * 8
        out = np.ones_like(pages)
        memory.read(3, out)
        assert (out == pages).all()
        assert os.fstat(memory.fd).st_blocks == 4 * 8
        with pytest.raises(GuestError, match="of 40960 bytes of guest memory at page 10"):
            memory.read(10, out)


def test_nobody_lands_where_somebody_else_does(tmp_path: Path) -> None:
    """Two guests mixed in one file, both of them said to be whole."""
    path = tmp_path / "a"
    make_file(path)
    fd = named_memory(path, 8192, cleared=False)
    try:
        with pytest.raises(ConfigError, match="is locked: another migration moves it"):
            named_memory(path, 8192, cleared=False)
    finally:
        os.close(fd)
    fd = named_memory(path, 8192, cleared=False)
    os.close(fd)


def test_only_what_was_made_here_is_removed(tmp_path: Path) -> None:
    """Somebody's file that a failed migration removes; or gigabytes that it leaves."""
    path = tmp_path / "landing"
    made = make_file(path)
    assert made is not None
    assert path.stat().st_mode & 0o777 == 0o600
    assert make_file(path) is None
    (tmp_path / "other").write_bytes(b"x")
    (tmp_path / "other").rename(path)
    remove_file(made)
    assert path.read_bytes() == b"x"
    path.unlink()
    again = make_file(path)
    assert again is not None
    remove_file(again)
    remove_file(again)
    assert not path.exists()
