"""Disks that do not move: told before anything has moved, and nobody's file is changed."""

import filecmp
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.model import Config
from protocol.errors import ConfigError
from protocol.uri import Uri
from tests.pipeline.guests.helpers import python
from tests.system.disks import IDLE, at, differ, image
from tests.system.migrations import MIB, Destination, migrate, nobody, settings


def refused(folder: Path, config: dict[str, Any], there: dict[str, Any] | None = None) -> str:
    """What is said at the source of a migration that fails before anything has moved."""
    destination = Destination(there or config, folder)
    here = migrate(Config.model_validate(config), destination.uri, nobody)
    destination.result()
    assert (here.status, here.guest_alive) == ("failed", "source")
    assert here.rounds == []
    assert here.error_desc is not None
    return here.error_desc


def test_another_base_is_seen_before_anything_moves(files: Path) -> None:
    """A disk of which the pages that were not sent are another guest's."""
    base, other = image(files / "base", 2 * MIB), image(files / "other", 2 * MIB, 9)
    differ(files / "disk0", base, 0.1)
    config = settings(IDLE, disks=[at(files, base=base)])
    there = settings(IDLE, disks=[at(files, base=other)])
    said = refused(files, config, there)
    assert f"base {other} is not what the source has as base of the disk" in said
    assert not (files / "there0").exists()


@pytest.mark.parametrize(
    ("there", "words"),
    [
        ([], "1 disks come, the configuration here lists 0"),
        ([{"path": "disk0", "destination": "there0"}], "disks.0.base"),
        ([{"path": "base", "base": "base"}], "is another one's, or a base"),
    ],
)
def test_a_destination_that_knows_of_none(
    files: Path, there: list[dict[str, str]], words: str
) -> None:
    """A guest that arrives without its disk."""
    base = image(files / "base", 2 * MIB)
    differ(files / "disk0", base, 0.1)
    listed = [{key: str(files / name) for key, name in one.items()} for one in there]
    config = settings(IDLE, disks=[at(files, base=base)])
    assert re.search(words, refused(files, config, settings(IDLE, disks=listed)))
    assert filecmp.cmp(base, image(files / "again", 2 * MIB), shallow=False)


def test_a_disk_that_somebody_writes_to_is_left_alone(files: Path) -> None:
    """Another guest's disk, of the same size, at the path that both machines have."""
    image(files / "disk0", 2 * MIB)
    there = image(files / "there0", 2 * MIB, 5)
    before = there.read_bytes()
    opens = (
        "import os, sys; os.open(sys.argv[1], os.O_RDWR); print(1, flush=True); sys.stdin.read()"
    )
    with python(opens, str(there)) as (process, _):
        said = refused(files, settings(IDLE, disks=[at(files)]))
        assert f"process {process.pid} can write to {there}: it is in use" in said
    assert there.read_bytes() == before


def test_no_base_is_written_over(files: Path) -> None:
    """The destination of one disk that is the base of the next one."""
    base = image(files / "base", 2 * MIB)
    before = base.read_bytes()
    differ(files / "disk0", base, 0.1)
    differ(files / "disk1", base, 0.1)
    disks = [at(files), at(files, 1, base=base)]
    swapped = [{**disks[0], "destination": str(base)}, disks[1]]
    said = refused(files, settings(IDLE, disks=disks), settings(IDLE, disks=swapped))
    assert f"disks.0.destination: {base} is another one's, or a base" in said
    assert base.read_bytes() == before


def test_a_file_of_another_size_is_left_alone(files: Path) -> None:
    """Somebody's image, cut to the size of another one."""
    image(files / "disk0", 2 * MIB)
    there = image(files / "there0", 3 * MIB, 5)
    before = there.read_bytes()
    said = refused(files, settings(IDLE, disks=[at(files)]))
    assert f"a disk of {2 * MIB} bytes comes, {there} has {3 * MIB}" in said
    assert there.read_bytes() == before


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: None, "cannot be opened: No such file"),
        (lambda path: path.mkdir(), "is not a regular file"),
        (lambda path: path.write_bytes(b"QFI\xfb" + bytes(4092)), "is a qcow2 image, which grows"),
        (lambda path: path.write_bytes(b"odd"), "has 3 bytes, expected a multiple of 4096, not 0"),
    ],
)
def test_what_is_no_disk(folder: Path, make: Any, words: str) -> None:  # noqa: ANN401
    """A traceback for a path that is misspelt."""
    disk = folder / "disk0"
    make(disk)
    uri = Uri("unix", path=str(folder / "control"))
    with pytest.raises(ConfigError, match=f"disks.0.path: {disk} {words}"):
        migrate(Config.model_validate(settings(IDLE, disks=[at(folder)])), uri, nobody)
    if disk.is_dir():
        disk.rmdir()
    disk.unlink(missing_ok=True)


def test_a_saved_guest_takes_none_along(files: Path) -> None:
    """A guest that is loaded without its disk."""
    image(files / "disk0", MIB)
    config = Config.model_validate(settings(IDLE, disks=[at(files)]))
    with pytest.raises(ConfigError, match="disks: a saved guest takes none along"):
        migrate(config, Uri("file", path=str(files / "saved")), nobody)


MAPS = """
import mmap, sys
with open(sys.argv[1], "r+b") as file:
    memory = mmap.mmap(file.fileno(), 0)
print(1, flush=True)
sys.stdin.read()
"""


def test_one_that_somebody_else_has_mapped(files: Path) -> None:
    """Writes that change no time of the file."""
    disk, config = image(files / "disk0", 2 * MIB), settings(IDLE, disks=[at(files)])
    nowhere = Uri("unix", path=str(files / "control"))
    with python(MAPS, str(disk)) as (process, _):
        here = migrate(Config.model_validate(config), nowhere, nobody)
    assert (here.status, here.guest_alive) == ("failed", "source")
    assert f"process {process.pid} has disk {disk} mapped for writing" in str(here.error_desc)


@pytest.mark.skipif(os.geteuid() != 0, reason="loop devices are made by root")
def test_a_file_that_the_kernel_has_is_left_alone(files: Path) -> None:
    """A file system that is mounted, overwritten."""
    image(files / "disk0", 2 * MIB)
    there = image(files / "there0", 2 * MIB, 5)
    before = there.read_bytes()
    made = subprocess.run(
        ["losetup", "-f", "--show", str(there)], capture_output=True, text=True, check=False
    )
    if made.returncode:
        pytest.skip(f"no loop device can be had: {made.stderr.strip()}")
    device = made.stdout.strip()
    try:
        said = refused(files, settings(IDLE, disks=[at(files)]))
    finally:
        subprocess.run(["losetup", "-d", device], check=True)
    assert f"{Path(device).name} has {there}: it is in use" in said
    assert there.read_bytes() == before


def test_nothing_is_changed_before_all_are_looked_at(files: Path) -> None:
    """The first of two images, lost for the second one."""
    base = image(files / "base", 2 * MIB)
    for number in (0, 1):
        differ(files / f"disk{number}", base, 0.1)
    there = image(files / "there0", 2 * MIB, 5)
    image(files / "there1", 3 * MIB, 6)
    before = there.read_bytes()
    disks = [at(files, 0, base=base), at(files, 1)]
    assert "there1 has" in refused(files, settings(IDLE, disks=disks))
    assert there.read_bytes() == before
