"""What this machine lacks is told before anything starts."""

import os
import re
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path

import pytest

from pipeline.config.environment import check_environment
from pipeline.config.model import Config
from protocol.errors import ConfigError
from protocol.limits import PAGE_BYTES
from workers import packages


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "memory"
    path.write_bytes(bytes(8192))
    yield path
    path.unlink(missing_ok=True)


def config(guest: Path | None = None, target: Path | None = None, **keys: object) -> Config:
    """`guest`: its memory file, else a synthetic one; a pid goes in with `pid`."""
    pid = {"pid": keys.pop("pid")} if "pid" in keys else {}
    file = {"kind": "file", "path": str(guest), **pid}
    return Config.model_validate(
        {
            "guest": {"kind": "synthetic"} if guest is None else file,
            "destination": {"path": None if target is None else str(target)},
            **keys,
        }
    )


def refusal(made: Config, *, source: bool = True, destination: bool = True) -> str:
    with pytest.raises(ConfigError) as caught:
        check_environment(made, source=source, destination=destination)
    return str(caught.value)


def test_what_is_there_is_accepted(memory: Path, tmp_path: Path) -> None:
    """A check so strict that nothing passes."""
    check_environment(config(), source=True, destination=True)
    made = config(memory, tmp_path / "new", pid=os.getpid(), codec="zstd")
    check_environment(made, source=True, destination=True)
    assert not (tmp_path / "new").exists()


def test_missing_guest_file(tmp_path: Path) -> None:
    """A migration that starts workers before it sees that there is no guest."""
    made = config(tmp_path / "nothing")
    assert "nothing does not exist" in refusal(made)
    check_environment(made, source=False, destination=True)


def test_guest_that_is_no_file(tmp_path: Path) -> None:
    """A folder opened as memory."""
    assert "is not a regular file" in refusal(config(tmp_path))


@pytest.mark.parametrize("size", [0, 5000])
def test_guest_of_a_wrong_size(memory: Path, size: int) -> None:
    """A last page that is not whole, read as zeros or lost."""
    os.truncate(memory, size)
    assert f"has {size} bytes, expected a multiple of 4096" in refusal(config(memory))


def test_pid_that_is_no_process(memory: Path) -> None:
    """A writer that cannot be stopped, noticed at the switch-over."""
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    assert f"guest.pid: found {pid}" in refusal(config(memory, pid=pid))


def test_destination_without_a_folder(tmp_path: Path, memory: Path) -> None:
    """A destination that fails only after the source connected."""
    assert "there is no folder" in refusal(config(target=tmp_path / "no" / "file"))
    assert "there is no folder" in refusal(config(target=memory / "file"))
    check_environment(config(target=tmp_path / "no" / "file"), source=True, destination=False)


def test_destination_that_is_no_file(tmp_path: Path) -> None:
    """Memory written into a folder or a device."""
    assert "is not a regular file" in refusal(config(target=tmp_path))
    assert "is not a regular file" in refusal(config(target=Path("/dev/null")))


def test_destination_that_cannot_be_written(
    tmp_path: Path, memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Permissions looked at too late; root may write everywhere, so the answer is given here."""
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)
    assert f"{memory} cannot be written" in refusal(config(target=memory))
    assert f"{tmp_path} cannot be written" in refusal(config(target=tmp_path / "new"))


def test_guest_that_cannot_be_read(memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As above, for the source."""
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.R_OK)
    assert "cannot be read" in refusal(config(memory))


def test_destination_is_the_guests_own_file(memory: Path, tmp_path: Path) -> None:
    """A guest that is moved onto itself, by another name: its memory would be cleared."""
    link = tmp_path / "link"
    link.symlink_to(memory)
    hard = tmp_path / "hard"
    hard.hardlink_to(memory)
    for target in (memory, link, hard):
        assert "itself: another path is needed" in refusal(config(memory, target))


@pytest.mark.parametrize(("codec", "package"), [("zstd", "zstandard"), ("lz4", "lz4")])
def test_codec_without_its_package(
    codec: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An ImportError in a worker instead of how to install it."""

    def without(name: str) -> ModuleSpec | None:
        return None if name == package else find_spec(name)

    monkeypatch.setattr(packages, "find_spec", without)
    expected = f"codec: {codec} needs the package {package}: pip install {package}"
    assert refusal(config(codec=codec)) == expected
    off = config(codec=codec, capabilities={"compress": False})
    check_environment(off, source=True, destination=True)


@pytest.mark.parametrize(
    ("disk", "words"),
    [
        ({"path": "nowhere"}, "disks.0.path: DIR/nowhere does not exist, expected a raw image"),
        ({"path": "."}, "disks.0.path: DIR is not a regular file, expected a raw image"),
        ({"path": "disk"}, "disks.0.destination: DIR/disk is DIR/disk itself"),
        ({"path": "disk", "destination": "there/x"}, "disks.0.destination: there is no folder DIR"),
        ({"path": "disk", "destination": "t", "base": "b"}, "disks.0.base: DIR/b does not exist"),
        ({"path": "disk", "destination": "base", "base": "base"}, "DIR/base is DIR/base itself"),
    ],
)
def test_a_disk_that_cannot_move(tmp_path: Path, disk: dict[str, str], words: str) -> None:
    """A migration that fails in the middle for what could be seen before."""
    for name in ("disk", "base"):
        (tmp_path / name).write_bytes(bytes(PAGE_BYTES))
    listed = {key: str(tmp_path / name) for key, name in disk.items()}
    asked = Config.model_validate({"guest": {"kind": "synthetic"}, "disks": [listed]})
    with pytest.raises(ConfigError, match=re.escape(words.replace("DIR", str(tmp_path)))):
        check_environment(asked, source=True, destination=True)


def test_a_disk_for_the_other_machine_is_not_looked_for(tmp_path: Path) -> None:
    """A path of the source that the destination has not."""
    listed = {"path": str(tmp_path / "here"), "destination": str(tmp_path / "there")}
    asked = Config.model_validate({"guest": {"kind": "synthetic"}, "disks": [listed]})
    check_environment(asked, source=False, destination=True)
