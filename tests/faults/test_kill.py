"""One end is killed: the other one ends by itself, in time, with the reason, cleanly.

Who is killed falls silent for as long as the other one's patience lasts, so all cases
of an end wait at the same time.
"""

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xxhash

from pipeline.config.model import Config
from pipeline.guests.synthetic import SyntheticGuest
from pipeline.leftovers.cleanup import cleanup
from pipeline.progress import Progress
from pipeline.result import Result, exit_code
from pipeline.source.departures import make_guest
from protocol import control as c
from protocol.devices import Section, encode_global_state, encode_sections
from protocol.status import Status
from tests.faults.fake_peers import HELLO, FakeSource
from tests.leaks import nothing_left
from tests.pipeline.guests.helpers import wait_until
from tests.system.migrations import Command, Destination, listen, migrate, settings
from workers.pages import ZERO_HASH

SILENCE_S = 5.0
SLACK_S = 4.0
"""A heartbeat may have come a second late, and eight processes at a time want two cores."""

BUSY: dict[str, Any] = {
    "kind": "synthetic",
    "memory": "16MiB",
    "workload": {"working-set": "8MiB", "dirty-rate": "40MiB"},
}
ZERO_DIGEST = xxhash.xxh3_64_intdigest(np.full(HELLO.blocks[0].pages, ZERO_HASH, np.uint64))
"""Of the page hashes of a memory that is all holes."""

ENDLESS = settings(BUSY, verify="off", parameters={"max-bandwidth": "10MiB", "downtime-limit": 30})
"""Dirties more than it can send: round after round until somebody ends it."""


@dataclass
class Outcome:
    """How the end that was left behind ended, and how long after the kill."""

    result: Result
    seconds: float
    guest_ran_on: bool = False


# The destination is killed.


class LeavingGuest(SyntheticGuest):
    """Calls `leaving` when it is stopped and about to go."""

    leaving: Callable[[], None] = staticmethod(lambda: None)

    def save_devices(self) -> list[Section]:
        """Its devices, after whatever the test does at that moment."""
        self.leaving()
        return super().save_devices()


def make_leaving_guest(config: Config) -> LeavingGuest:
    guest = make_guest(config)
    guest.__class__ = LeavingGuest
    assert isinstance(guest, LeavingGuest)
    return guest


def destination_killed(folder: Path, phase: str) -> Outcome:
    """Migrate a guest to a destination that is killed in `phase`."""
    config = Config.model_validate(settings() if phase == "before commit" else ENDLESS)
    killed: list[float] = []
    with listen(folder) as there:
        uri, guest = there.uri, make_leaving_guest(config)

        def kill() -> None:
            if not killed:
                there.process.kill()
                there.process.wait()
                killed.append(time.monotonic())

        def observe(progress: Progress) -> None:
            rounds = {"setup": 0, "first round": 1, "later round": 3}
            status = Status.SETUP if phase == "setup" else Status.ACTIVE
            if progress.status is status and progress.round_no >= rounds.get(phase, 1000):
                kill()

        if phase == "before commit":
            guest.leaving = kill
        try:
            result = migrate(config, uri, observe, guest=guest)
            ended = time.monotonic()
            guest.statistics()
            wait_until(lambda: (guest.statistics().dirty_rate or 0) > 0)
            return Outcome(result, ended - killed[0], guest.self_check() is None)
        finally:
            guest.close()


# The source is killed.


def source_killed(folder: Path, phase: str) -> Outcome:
    """Let a destination wait for a source that is killed in `phase`."""
    there = waiting_destination(folder, phase)
    with Command(folder, "migrate", "--uri", f"unix:{there.uri.path}", config=ENDLESS) as source:
        source.wait_for({"first round": "round 1", "later round": "round 3"}[phase])
        source.process.kill()
        source.process.wait()
        return left_alone(there)


def source_falls_silent(folder: Path, phase: str) -> Outcome:
    """The same for phases that pass too quickly to be hit: the source is a fake."""
    there = waiting_destination(folder, phase)
    with FakeSource(there.uri, os.urandom(16)) as source:
        source.greet(HELLO)
        if phase == "before commit":
            stream = encode_sections([encode_global_state("running")])
            source.send(c.RoundStart(round_no=1, first_seq=1))
            source.send(c.Verify(last_seq=0, digests=[ZERO_DIGEST]))
            source.expect(c.Verified)
            source.send(c.Devices(data=stream, last=True))
            source.expect(c.Ready)
        return left_alone(there)


def waiting_destination(folder: Path, phase: str) -> Destination:
    inner = folder / phase
    inner.mkdir()
    return Destination(settings(to=inner / "target", commit_timeout=SILENCE_S), inner)


def left_alone(there: Destination) -> Outcome:
    began = time.monotonic()
    outcome = Outcome(there.result(), time.monotonic() - began)
    inner = Path(there.uri.path).parent
    inner.rmdir()  # neither socket nor memory in it
    return outcome


def source_lost(folder: Path, phase: str) -> Outcome:
    """Either way."""
    return (source_killed if "round" in phase else source_falls_silent)(folder, phase)


# All of it at the same time.


PHASES = ("setup", "first round", "later round", "before commit")


@dataclass
class Left:
    """What came of the end that was left, by the phase in which it lost the other."""

    sources: dict[str, Outcome]
    destinations: dict[str, Outcome]


@pytest.fixture(scope="module")
def left() -> Left:
    with nothing_left() as folder:
        with ThreadPoolExecutor(2 * len(PHASES)) as pool:
            sources = pool.map(lambda phase: destination_killed(folder, phase), PHASES)
            destinations = pool.map(lambda phase: source_lost(folder, phase), PHASES)
            outcomes = Left(
                dict(zip(PHASES, sources, strict=True)),
                dict(zip(PHASES, destinations, strict=True)),
            )
        assert cleanup()[1]
    return outcomes


@pytest.mark.parametrize("phase", PHASES)
def test_destination_killed(left: Left, phase: str) -> None:
    """A source that waits for ever, or a guest that runs nowhere any more."""
    outcome = left.sources[phase]
    assert outcome.result.status == "failed"
    reason = str(outcome.result.error_desc)
    assert reason.startswith(("the destination is gone: nothing heard", "nobody answers at"))
    assert outcome.result.guest_alive == "source"
    assert outcome.guest_ran_on
    assert outcome.seconds < SILENCE_S + SLACK_S


@pytest.mark.parametrize("phase", PHASES)
def test_source_killed(left: Left, phase: str) -> None:
    """A destination that starts a guest nobody gave away, or that stays for ever."""
    outcome = left.destinations[phase]
    assert exit_code(outcome.result) == 1
    assert outcome.result.status == "failed"
    assert "the source is gone: nothing heard for 5 s" in str(outcome.result.error_desc)
    assert outcome.result.guest_alive != "destination"
    assert outcome.result.self_check is None
    assert outcome.seconds < SILENCE_S + SLACK_S
