"""A guest saved in a file, and loaded from there: whole and undamaged, or not at all."""

import errno
import os
import signal
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from pipeline.config.model import Config
from pipeline.guests.synthetic import SyntheticGuest
from pipeline.leftovers.cleanup import cleanup
from pipeline.result import Result
from protocol.errors import ConfigError
from protocol.uri import Uri
from tests.faults.test_kill import ENDLESS
from tests.pipeline.guests.helpers import wait_until
from tests.protocol.samples import flipped
from tests.system.migrations import ROOT, Command, incoming, migrate, nobody, settings
from tests.system.test_file_guest import assert_same, file_guest, image, shm
from tests.system.test_synthetic_guest import synthetic_guest, writes

pytestmark = pytest.mark.more

__all__ = ["shm"]

SMALL = {"kind": "synthetic", "memory": "1MiB", "workload": {"working-set": "256KiB"}}


def save(config: dict[str, object], path: Path, guest: SyntheticGuest | None = None) -> Result:
    """Save a guest; how that ended."""
    uri = Uri("file", path=str(path))
    return migrate(Config.model_validate(config), uri, nobody, guest=guest)


def load(config: dict[str, object], path: Path) -> Result:
    """Load a guest; how that ended."""
    return incoming(Config.model_validate(config), Uri("file", path=str(path)), None, nobody)


@pytest.mark.parametrize(
    ("codec", "verify"), [("zlib", "full"), ("zstd", "full"), ("none", "off"), ("lz4", "frames")]
)
def test_every_byte_comes_back(folder: Path, shm: Path, codec: str, verify: str) -> None:
    """Frames that are lost, doubled or out of order in the file; holes that are filled."""
    source, saved, target = image(shm / "source"), shm / "saved", shm / "target"
    config = settings(file_guest(source), to=target, codec=codec, verify=verify)
    here = save(config, saved)
    assert here.guest_alive == "source"
    assert here.verified == {"full": True, "frames": "frames", "off": None}[verify]
    assert saved.stat().st_mode & 0o777 == 0o600
    assert_same((here, load(config, saved)), source, target)
    assert folder.exists()


def test_a_guest_at_work_is_saved_and_stands_still(folder: Path) -> None:
    """A guest that runs on behind its back, or that can never run again, though nobody has it."""
    with synthetic_guest() as guest:
        here = save(settings(), folder / "saved", guest)
        assert (here.status, here.guest_alive) == ("completed", "source")
        assert guest.run_state() == "paused"
        before = writes(guest.blocks[0].fd)
        guest.go_on()
        wait_until(lambda: writes(guest.blocks[0].fd) > before, 5)
    there = load(settings(), folder / "saved")
    assert there.error_desc is None
    assert (there.status, there.self_check) == ("completed", "clean")
    again = load(settings(), folder / "saved")
    assert again.self_check == "clean", "it can be loaded only once"
    (folder / "saved").unlink()


def test_two_processes(folder: Path) -> None:
    """A command line on which a file is something else than inside."""
    uri = f"file:{os.path.relpath(folder / 'saved', ROOT)}"
    with Command(folder, "migrate", "--uri", uri, config=settings()) as here:
        assert here.code() == 0, here.words
    with Command(folder, "incoming", "--uri", uri) as there:
        assert there.result().self_check == "clean", there.words
    (folder / "saved").unlink()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small saved guest."""
    path = tmp_path_factory.mktemp("saved") / "guest"
    assert save(settings(SMALL), path).status == "completed"
    return path


def refused(folder: Path, content: bytes) -> str:
    """Why a saved guest of this content is not loaded; nothing of it is started."""
    damaged = folder / "damaged"
    damaged.write_bytes(content)
    there = load(settings(SMALL), damaged)
    damaged.unlink()
    assert there.status == "failed"
    assert there.session is None, "a word was said"
    assert there.error_desc is not None
    assert there.error_desc.startswith(f"load of migration failed: {damaged} is no saved guest: ")
    return there.error_desc.partition("guest: ")[2]


CUTS: list[Callable[[int], int]] = [
    lambda _: 0,
    lambda _: 7,
    lambda _: 8,
    lambda _: 15,
    lambda _: 200,
    lambda size: size // 2,
    lambda size: size - 20,
    lambda size: size - 1,
]


@pytest.mark.parametrize("cut", CUTS)
def test_a_file_that_is_cut_off(folder: Path, whole: Path, cut: Callable[[int], int]) -> None:
    """Half a guest, started."""
    content = whole.read_bytes()
    why = refused(folder, content[: cut(len(content))])
    assert why in (
        "it does not begin with a hello",
        "it ends in the middle of a record",
        "its end is missing",
    )


@pytest.mark.parametrize("part", range(8))
def test_a_bit_that_flipped(folder: Path, whole: Path, part: int) -> None:
    """A guest with a wrong page, or a reader that falls over a length."""
    content = whole.read_bytes()
    assert refused(folder, flipped(content, len(content) * part + 5))


def test_what_follows_the_end(folder: Path, whole: Path) -> None:
    """Two files in one: which of the guests was meant?"""
    assert refused(folder, whole.read_bytes() + b"x") == "something follows its end"
    assert "not a pageferry stream" in refused(folder, b"#!/bin/sh\n" * 9)


def saver_of(command: Command) -> psutil.Process:
    """The process that writes the file: it has it open, though it has no name."""
    for process in psutil.Process(command.process.pid).children(recursive=True):
        opened = [str(fd.readlink()) for fd in Path(f"/proc/{process.pid}/fd").iterdir()]
        if any("(deleted)" in name and "memfd" not in name for name in opened):
            return process
    raise AssertionError("nobody writes a file")


def test_the_saver_dies(folder: Path) -> None:
    """Half a file that passes for a guest; a guest that stands still for nothing."""
    saved = folder / "saved"
    with Command(folder, "migrate", "--uri", f"file:{saved}", config=ENDLESS) as here:
        here.wait_for("round 2")
        saver_of(here).kill()
        result = here.result()
    assert not saved.exists()
    assert (result.status, result.guest_alive) == ("failed", "source")
    assert result.error_desc == f"the saver of file:{saved} died"


def test_the_source_dies(folder: Path) -> None:
    """Half a file, or a saver that nobody ends."""
    saved = folder / "saved"
    with Command(folder, "migrate", "--uri", f"file:{saved}", config=ENDLESS) as here:
        here.wait_for("round 2")
        saver = saver_of(here)
        here.process.kill()
        saver.wait(3)
    assert not saved.exists()
    cleanup()


def test_a_cancel(folder: Path) -> None:
    """A file that is there though nobody wants it any more."""
    saved = folder / "saved"
    with Command(folder, "migrate", "--uri", f"file:{saved}", config=ENDLESS) as here:
        here.wait_for("round 2")
        here.process.send_signal(signal.SIGTERM)
        assert here.code(within_s=3) == 130
        assert here.result().guest_alive == "source"
    assert not saved.exists()


NO_LARGE_FILES = (
    "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20));"
    "sys.argv[0] = 'pageferry'; runpy.run_module('pipeline', run_name='__main__')"
)


def test_no_room_for_the_file(folder: Path, shm: Path) -> None:
    """A guest that is called saved, on a disk that was full."""
    saved, config = folder / "saved", settings(file_guest(image(shm / "source")), codec="none")
    launch = ("-c", NO_LARGE_FILES)
    uri = f"file:{saved}"
    with Command(folder, "migrate", "--uri", uri, config=config, launch=launch) as here:
        result = here.result()
    assert not saved.exists()
    assert (result.status, result.guest_alive) == ("failed", "source")
    why = f"the destination failed: {saved} cannot be saved: {os.strerror(errno.EFBIG)}"
    assert result.error_desc == why


def test_a_file_that_is_there_is_not_replaced(folder: Path) -> None:
    """A guest that was saved yesterday."""
    precious = folder / "precious"
    precious.write_text("precious")
    with pytest.raises(ConfigError, match="exists, expected a path for a new file"):
        save(settings(SMALL), precious)
    with pytest.raises(ConfigError, match="its folder is not there"):
        save(settings(SMALL), folder / "no" / "saved")
    assert precious.read_text() == "precious"
    precious.unlink()


def test_a_file_that_comes_meanwhile_is_not_replaced(folder: Path) -> None:
    """The same, of somebody who was quicker: a definite no, and the guest goes on here."""
    saved = folder / "saved"
    uri = Uri("file", path=str(saved))

    def intrude() -> None:
        saved.write_text("precious")

    here = migrate(Config.model_validate(settings(SMALL)), uri, nobody, watch=intrude)
    assert here.guest_alive == "source"
    assert here.error_desc is not None
    assert f"{saved} cannot be saved: File exists" in here.error_desc
    assert saved.read_text() == "precious"
    saved.unlink()
