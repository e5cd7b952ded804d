"""Our answers against those of a real QEMU 7.2, field by field."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline.guests.helpers import wait_until
from tests.pipeline.monitor.talking import Client, listens
from tests.system.driven import driven

QEMU = "qemu-system-x86_64"
ONLY_OURS = {"query-migrate": {"compression"}}
"""Fields that QEMU 7.2 does not answer with: `compression` it has only where that is on."""
NOT_OURS = {
    "query-migrate-parameters": {
        "announce-initial", "announce-max", "announce-rounds", "announce-step",
        "block-incremental", "compress-wait-thread", "cpu-throttle-increment",
        "cpu-throttle-initial", "cpu-throttle-tailslow", "max-cpu-throttle",
        "max-postcopy-bandwidth", "multifd-channels", "multifd-compression", "multifd-zlib-level",
        "multifd-zstd-level", "throttle-trigger-threshold", "tls-authz", "tls-creds",
        "tls-hostname", "x-checkpoint-delay",
    },
    "ram": {
        "downtime-bytes", "multifd-bytes", "postcopy-bytes", "postcopy-requests", "precopy-bytes",
        "dirty-sync-missed-zero-copy",
    },
}  # fmt: skip
"""Fields that QEMU has gained since the version whose commands these are (2.4)."""
OLD_NAMES = {
    "migrate_set_speed", "migrate_set_downtime", "migrate-set-cache-size",
    "query-migrate-cache-size",
}  # fmt: skip
"""Commands that QEMU had then, and 7.2 lacks."""


@contextmanager
def qemu(path: Path) -> Iterator[Client]:
    """A QEMU that has migrated its memory away, over to nobody."""
    command = [
        QEMU, "-machine", "pc", "-m", "16M", "-nodefaults", "-display", "none", "-S",
        "-qmp", f"unix:{path},server=on,wait=off",
    ]  # fmt: skip
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            wait_until(lambda: listens(path))
            with Client(path) as client:
                client.ask("migrate", uri="exec:cat > /dev/null")
                wait_until(lambda: client.ask("query-migrate")["status"] == "completed")
                yield client
        finally:
            process.kill()


@contextmanager
def ours(folder: Path) -> Iterator[Client]:
    """A source that has migrated its guest away."""
    with driven(folder) as ends, Client(ends.source) as here, Client(ends.destination) as there:
        there.ask("migrate-incoming", uri=ends.uri)
        here.ask("migrate", uri=ends.uri)
        here.wait_for("MIGRATION", status="completed")
        yield here


def compare(name: str, here: dict[str, Any], there: dict[str, Any]) -> None:
    """AssertionError for a field that is missing, too much, or of another type."""
    assert here.keys() - there.keys() == ONLY_OURS.get(name, set())
    assert there.keys() - here.keys() == NOT_OURS.get(name, set())
    for field in here.keys() & there.keys():
        kinds = {kind(here[field]), kind(there[field])}
        assert len(kinds) == 1, (name, field, here[field], there[field])


def kind(value: object) -> str:
    """The JSON type; QEMU writes a number that happens to be whole without a fraction."""
    if isinstance(value, bool):
        return "bool"
    return "number" if isinstance(value, int | float) else type(value).__name__


@pytest.mark.skipif(shutil.which(QEMU) is None, reason=f"{QEMU} is not installed")
def test_the_answers_are_qemus(folder: Path) -> None:
    """A program that reads QEMU's answers and stumbles over ours."""
    with qemu(folder / "qemu.qmp") as peer, ours(folder) as here:
        assert here.greeting["QMP"].keys() == peer.greeting["QMP"].keys()
        for name in ("query-migrate-parameters", "query-status", "query-version", "query-migrate"):
            compare(name, here.ask(name), peer.ask(name))
        compare("ram", here.ask("query-migrate")["ram"], peer.ask("query-migrate")["ram"])
        for name in ("query-commands", "query-migrate-capabilities"):
            assert {frozenset(one) for one in here.ask(name)} == {frozenset(peer.ask(name)[0])}
        commands = [{one["name"] for one in end.ask("query-commands")} for end in (here, peer)]
        assert commands[0] - commands[1] == OLD_NAMES
        known = {one["capability"] for one in peer.ask("query-migrate-capabilities")}
        assert {one["capability"] for one in here.ask("query-migrate-capabilities")} <= known
        for execute, arguments in (("none", {}), ("migrate", {"x": 1})):
            errors = [end.try_to(execute, **arguments)["error"] for end in (here, peer)]
            assert errors[0]["class"] == errors[1]["class"]
        (folder / "qemu.qmp").unlink()
