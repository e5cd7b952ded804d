"""What is in the way of a machine's migration is told before anything starts."""

import os
from pathlib import Path

import pytest

from pipeline.guests.qemu.arrival import QemuArrival
from pipeline.guests.qemu.ram import why_hidden
from pipeline.guests.qemu.source import QemuGuest
from protocol.errors import NoSuchGuest
from tests.pipeline.guests.helpers import as_another_user
from tests.qemu.machine import Qemu, two_machines
from tests.qemu.pairs import GUEST, config_of, needs_qemu, pair
from tests.qemu.test_unseen import BALLOON
from tests.system.migrations import Command, settings

pytestmark = needs_qemu


def probed(folder: Path, config: dict[str, object]) -> str:
    """What `check --probe` says of a machine that cannot move."""
    with Command(folder, "check", "--probe", config=config) as check:
        assert check.code() == 1, check.words
        assert "can-move: false" in check.output
        return check.output.partition("in-the-way:")[2]


def test_one_that_has_left_does_not_leave_again(folder: Path) -> None:
    """A guest that is rolled back, and runs twice."""
    with pair(folder) as machines:
        with Command(folder, "run", config=machines.config()) as run:
            assert run.code() == 0, run.words
        assert "its state was taken before" in probed(folder, machines.config())
        uri = f"unix:{folder}/nobody"
        with Command(folder, "migrate", "--uri", uri, config=machines.config()) as again:
            assert again.code() == 2
            assert "guest.qmp: " in again.words
            assert "its state was taken before" in again.words


def test_the_wrong_way_round(folder: Path) -> None:
    """A waiting machine that is moved over the one that runs."""
    with two_machines(folder, GUEST) as (here, there):
        found = probed(folder, config_of(there, here))
        assert "it waits for a guest itself" in found
        assert "destination.qmp: " in found
        assert "it does not wait for a guest but is running" in found


def test_one_that_waits_by_itself(folder: Path) -> None:
    """A migration that is refused when all memory is there."""
    incoming = ("-S", "-incoming", "tcp:127.0.0.1:0")
    with (
        Qemu(folder, "there", GUEST, more=incoming) as there,
        pytest.raises(NoSuchGuest, match="-incoming defer"),
    ):
        QemuArrival(there.qmp, lambda _: None)


def test_a_tracker_that_cannot_be_had(folder: Path) -> None:
    """A probe that says: can move, and a migration that is refused."""
    with Qemu(folder, "here", GUEST, more=BALLOON) as here:
        guest = {"kind": "qemu", "qmp": str(here.qmp)}
        found = probed(folder, settings(guest, verify="frames", tracker="uffd"))
        assert "tracker: uffd cannot be had" in found
        assert "balloon" in found


def test_the_machine_of_somebody_else(folder: Path) -> None:
    """Memory that is looked for in /proc, and a traceback where that says nothing."""
    with Qemu(folder, "here", GUEST) as here:
        assert why_hidden(here.process.pid) is None
        if os.geteuid():
            pytest.skip("only root can become another user")
        for path in (here.folder, folder):
            path.chmod(path.stat().st_mode | 0o011)
        here.qmp.chmod(0o777)
        assert "does not show its memory" in as_another_user(lambda: refusal(here.qmp))


def refusal(qmp: Path) -> str:
    """Why the machine there cannot leave."""
    try:
        QemuGuest(qmp)
    except NoSuchGuest as error:
        return str(error)
    return ""
