"""Which file is a machine's memory: its own, and no other machine's."""

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from pipeline.guests.qemu.ram import Backend, is_file_of
from pipeline.guests.qemu.source import QemuGuest
from protocol.errors import NoSuchGuest
from protocol.limits import PAGE_BYTES
from tests.qemu.machine import SHM, Qemu
from tests.qemu.pairs import GUEST, config_of, needs_qemu
from tests.system.migrations import Command


@pytest.mark.parametrize(
    ("path", "link", "is_its"),
    [
        ("/m/ram", "/m/ram", True),
        ("/m/ram", "/m/ram (deleted)", True),
        ("/m/ram", "/m/ram2 (deleted)", False),
        ("/m", "/m/qemu_back_mem.m0.Xa1b2c (deleted)", True),
        ("/m/", "/m/qemu_back_mem._objects_m0.Xa1b2c (deleted)", True),
        ("/m", "/m/qemu_back_mem.m1.Xa1b2c (deleted)", False),
        ("/m", "/m/qemu_back_mem.m0.1.Xa1b2c (deleted)", False),
        ("/m", "/m/m0", False),
    ],
)
def test_a_file_is_that_of_one_memory(path: str, link: str, *, is_its: bool) -> None:
    """The memory of another object, sent twice, and its own not at all."""
    backend = Backend("m0", "memory-backend-file", 1 << 20, shared=True, path=path)
    assert is_file_of(backend, link) is is_its


def two_modules(folder: Path) -> tuple[str, ...]:
    """Options for two modules of memory whose files, without names by then, were in one folder."""
    made: list[str] = ["-m", "64M,slots=2,maxmem=1G"]
    for name in ("m0", "m1"):
        backend = f"memory-backend-file,id={name},size=16M,mem-path={folder},share=on"
        made += ["-object", backend, "-device", f"pc-dimm,memdev={name}"]
    return tuple(made)


def file_of(machine: Qemu, name: str) -> Path:
    """What a machine has open as the memory `name`."""
    found = Path(f"/proc/{machine.process.pid}/fd").iterdir()
    return next(path for path in found if f"qemu_back_mem.{name}." in str(path.readlink()))


@needs_qemu
def test_two_memories_of_one_folder(folder: Path) -> None:
    """One that is sent twice, and the other, which arrives empty and "verified"."""
    with TemporaryDirectory(prefix="t-", dir=SHM) as shm:
        more = two_modules(Path(shm))
        with (
            Qemu(folder, "here", GUEST, more=more) as here,
            Qemu(folder, "there", GUEST, more=more, incoming=True) as there,
        ):
            here.wait_up()
            for name in ("m0", "m1"):
                with file_of(here, name).open("r+b") as file:
                    file.write(name.encode() * 2048)
            with Command(folder, "run", config=config_of(here, there)) as run:
                assert run.code() == 0, run.words
            for name in ("m0", "m1"):
                with file_of(there, name).open("rb") as file:
                    assert file.read(PAGE_BYTES) == name.encode() * 2048
            there.wait_beats()


@needs_qemu
def test_memory_that_somebody_has_is_refused(folder: Path) -> None:
    """A guest that is moved into the memory that it runs in."""
    with Qemu(folder, "here", GUEST) as machine:
        guest = QemuGuest(machine.qmp)
        other = folder / "here" / "test.qmp"
        machine.monitor.__exit__()
        try:
            with pytest.raises(NoSuchGuest, match=r"memory ram: .* is locked"):
                QemuGuest(other)
        finally:
            guest.close()
        QemuGuest(other).close()
