"""Connections that are cut and bits that flip on the way: redone, repeated, completed."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.model import Config
from pipeline.guests.synthetic import SyntheticGuest
from pipeline.progress import Progress
from pipeline.result import Result
from pipeline.source import overdue
from pipeline.source.command import make_guest, migrate
from tests.faults.relay import Relay
from tests.system.migrations import Command, listen, settings

SLOW = {"max-bandwidth": "8MiB"}
Moment = Callable[[Relay], bool]


@contextmanager
def relayed(folder: Path, flip_at: tuple[int, ...] = ()) -> Iterator[tuple[Command, Relay]]:
    """A destination, and a relay in front of it."""
    with listen(folder) as there, Relay(there.uri, there.process.pid, flip_at) as relay:
        yield there, relay


def migrated(
    folder: Path, relay: Relay, config: dict[str, Any], *, status: str, do: Moment
) -> Result:
    """Migrate by the relay, with `do(relay)` once the migration has come to `status`, and again
    until it says that it is done."""
    done: list[bool] = []

    def observe(progress: Progress) -> None:
        if not done and progress.status == status and (progress.transferred or status == "setup"):
            done.extend([True] * do(relay))

    model = Config.model_validate(config)
    guest = make_guest(model)
    assert isinstance(guest, SyntheticGuest)
    try:
        here = migrate(model, relay.uri, observe, guest=guest)
    finally:
        guest.close()
    assert done, "the moment never came"
    return here


SLOWLY = [
    pytest.param(tracker, codec, marks=pytest.mark.slow)
    for tracker in ("auto", "hash")
    for codec in ("none", "zlib", "zstd", "lz4")
]


@pytest.mark.parametrize(("tracker", "codec"), [("auto", "zlib"), ("hash", "none"), *SLOWLY])
def test_a_data_connection_is_cut_in_a_round(folder: Path, tracker: str, codec: str) -> None:
    """Frames that went down with a connection: missing at the end, or waited for for ever; a
    page that was written between a frame and its redo, and is old at the end."""
    config = settings(parameters=SLOW, tracker=tracker, codec=codec)
    with relayed(folder) as (there, relay):
        here = migrated(folder, relay, config, status="active", do=lambda one: one.cut_data())
        assert relay.cuts > 0
        assert (here.error_desc, here.status, here.verified) == (None, "completed", True)
        assert here.redone > 0
        assert there.result().self_check == "clean"


@pytest.mark.parametrize("status", ["setup", "active"])
def test_the_control_connection_is_cut_for_3_s(folder: Path, status: str) -> None:
    """A migration that fails, or stands still, because a message was lost."""
    with relayed(folder) as (there, relay):
        here = migrated(
            folder,
            relay,
            settings(parameters=SLOW),
            status=status,
            do=lambda one: one.cut_control(3.0),
        )
        assert (here.error_desc, here.status, here.verified) == (None, "completed", True)
        assert there.result().self_check == "clean"


def test_the_control_connection_is_cut_in_the_switch_over(folder: Path) -> None:
    """Two guests, or none, because the word that one has started was lost."""
    with relayed(folder) as (there, relay):
        here = migrated(
            folder, relay, settings(), status="device", do=lambda one: one.cut_control(3.0)
        )
        assert (here.error_desc, here.status) == (None, "completed")
        assert here.guest_alive == "destination"
        assert there.result().self_check == "clean"


FLIPS = [12, 70, 130, 300, 10_000]
MORE_FLIPS = [5, 40, 200, 215, 230, 260, 420, 1_000, 100_000, 200_001]
"""The greeting and handshake of ZMTP, our hello, lengths, heads, tables and payloads."""


@pytest.mark.parametrize(
    "offset", [*FLIPS, *(pytest.param(at, marks=pytest.mark.slow) for at in MORE_FLIPS)]
)
def test_a_bit_that_flips_is_mended(
    folder: Path, monkeypatch: pytest.MonkeyPatch, offset: int
) -> None:
    """A page that arrives with another bit, or a migration that ends by one."""
    monkeypatch.setattr(overdue, "FIRST_NS", 2_000_000_000)
    monkeypatch.setattr(overdue, "SLOWEST", 1e9)
    config = settings(parameters=SLOW, codec="none")
    with relayed(folder, (offset,)) as (there, relay):
        here = migrated(folder, relay, config, status="active", do=lambda _: True)
        assert relay.flipped == 1
        assert (here.error_desc, here.status, here.verified) == (None, "completed", True)
        assert there.result().self_check == "clean"
