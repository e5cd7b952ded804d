"""Migrations from one machine to another, with addresses of their own and a link between them."""

import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import cycle, product
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.keys import make_keys
from tests.pipeline.guests.helpers import wait_until
from tests.pipeline.monitor.talking import Client, listens
from tests.system.migrations import SYNTHETIC, Command, settings
from tests.system.network import THERE, Network, needs_namespaces, network

pytestmark = [pytest.mark.more, needs_namespaces]

INSECURE: dict[str, Any] = {"security": {"insecure": True}}
PORT = 4444
BUSY = {
    "kind": "synthetic",
    "memory": "64MiB",
    "workload": {"working-set": "48MiB", "dirty-rate": "400MiB"},
}
"""A guest whose last round takes long."""


@pytest.fixture(name="link")
def _link() -> Iterator[Network]:
    with network() as made:
        yield made


def waiting(folder: Path, link: Network, config: dict[str, Any]) -> Command:
    uri = f"tcp:{THERE}:{PORT}"
    return Command(folder, "incoming", "--uri", uri, config=config, inside=link.there.inside)


def leaving(folder: Path, link: Network, config: dict[str, Any], *options: str) -> Command:
    uri = ("--uri", f"tcp:{THERE}:{PORT}") if "--wait" not in options else ()
    return Command(folder, "migrate", *uri, *options, config=config, inside=link.here.inside)


def assert_arrives(here: Command, there: Command) -> None:
    assert (here.code(), there.code()) == (0, 0), here.words + there.words
    assert here.result().verified is True
    assert there.result().self_check == "clean"


def test_with_keys(folder: Path, tmp_path: Path, link: Network) -> None:
    """Workers that look for each other on the wrong machine."""
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for keys in (ours, theirs):
        make_keys(keys)
    here_config, there_config = (
        settings(security={"keys": str(own), "peers": [str(peer / "pageferry.key")]})
        for own, peer in ((ours, theirs), (theirs, ours))
    )
    with waiting(folder, link, there_config) as there:
        assert there.uri.host == THERE
        with leaving(folder, link, here_config) as here:
            assert_arrives(here, there)


def test_without_keys_each_end_warns(folder: Path, link: Network) -> None:
    """Memory in plain text over a network, and nobody has been told."""
    with waiting(folder, link, settings(**INSECURE)) as there:
        assert there.uri.host == THERE
        with leaving(folder, link, settings(**INSECURE)) as here:
            assert_arrives(here, there)
            assert "insecure" in here.words
            assert "insecure" in there.words


def test_a_link_that_is_cut_for_2_s(folder: Path, link: Network) -> None:
    """A migration given up, or bytes lost, for a cable that was pulled and put back."""
    slow = settings(parameters={"max-bandwidth": "4MiB"}, **INSECURE)
    with waiting(folder, link, settings(**INSECURE)) as there:
        assert there.uri.host == THERE
        with leaving(folder, link, slow) as here:
            here.wait_for("round 1")
            link.cut()
            time.sleep(2)
            link.mend()
            assert_arrives(here, there)


def by_signal(number: signal.Signals) -> Callable[[Command, Client], None]:
    """The command hears it."""
    return lambda command, _: command.process.send_signal(number)


def by_qmp(_: Command, client: Client) -> None:
    """A client asks for it."""
    client.ask("migrate_cancel")


BY = {"SIGINT": by_signal(signal.SIGINT), "SIGTERM": by_signal(signal.SIGTERM), "QMP": by_qmp}
PARAMETERS: dict[str, dict[str, Any]] = {
    "setup": {"compress-threads": 24},
    "first round": {"max-bandwidth": "1MiB"},
    "later round": {"downtime-limit": 0},
    "wire limit": {"max-bandwidth": 1},
    "last round": {"downtime-limit": 60_000},
    "pre-switchover": {},
}


def reach(phase: str, here: Command, client: Client) -> None:
    """Wait until the migration is there."""
    match phase:
        case "setup":
            client.wait_for("MIGRATION", status="setup")
        case "first round":
            client.wait_for("MIGRATION_PASS")
        case "later round":
            for _ in range(3):
                client.wait_for("MIGRATION_PASS")
        case "wire limit":
            client.wait_for("MIGRATION", status="active")
            time.sleep(0.5)
        case "last round":
            client.wait_for("STOP")
        case "pre-switchover":
            client.wait_for("MIGRATION", status="pre-switchover")


@pytest.mark.parametrize(
    ("phase", "means", "hung"),
    [
        *((phase, means, "") for phase, means in product(PARAMETERS, BY)),
        *((phase, means, "hung network") for phase, means in zip(PARAMETERS, cycle(BY))),
    ],
)
def test_it_is_cancelled(folder: Path, link: Network, phase: str, means: str, hung: str) -> None:
    """A cancel that is not heard in some phase, or that waits for an end that cannot hear."""
    pause = {"pause-before-switchover": phase == "pre-switchover"}
    guest = BUSY if phase == "last round" else SYNTHETIC
    config = settings(guest, parameters=PARAMETERS[phase], capabilities=pause, **INSECURE)
    qmp = folder / "qmp"
    with (
        waiting(folder, link, settings(commit_timeout=3, **INSECURE)) as there,
        leaving(folder, link, config, "--wait", "--qmp", str(qmp)) as here,
    ):
        wait_until(partial(listens, qmp), 30)
        assert there.uri.host == THERE
        with Client(qmp) as client:
            client.ask("migrate", uri=f"tcp:{THERE}:{PORT}")
            reach(phase, here, client)
            if hung:
                link.cut()
            began = time.monotonic()
            BY[means](here, client)
            client.wait_for("MIGRATION", status="cancelled")
            assert time.monotonic() - began < 1
            if means == "QMP":
                assert client.ask("query-status")["running"]
                client.ask("quit")
        assert here.code() == 130, here.words
        assert here.result().guest_alive == "source"
        if hung and phase == "setup":
            there.process.terminate()  # it may not have heard that anybody came
        assert there.code() == (1 if hung and phase != "setup" else 130), there.words
        assert there.result().guest_alive == "source"
