"""Which file is a machine's memory: its own, and no other machine's."""

from pathlib import Path

import pytest

from pipeline.guests.qemu.ram import Backend, is_file_of
from pipeline.guests.qemu.source import QemuGuest
from protocol.errors import NoSuchGuest
from tests.qemu.machine import Qemu
from tests.qemu.pairs import GUEST, needs_qemu


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
