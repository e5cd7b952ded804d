"""Connections that are cut and bits that flip on the way: redone, repeated, completed."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from time import sleep

import pytest

from pipeline.liveness import SILENCE_SECONDS
from pipeline.result import Result
from pipeline.source import overdue
from pipeline.source.coordinator import Coordinator
from protocol import control as c
from tests.faults.damage import Damage, FlipsAt, FlipsInFrame
from tests.faults.leaving import before_rounds, leave, synthetic_guest, two_rounds
from tests.faults.relay import Relay, Way
from tests.leaks import nothing_left
from tests.pipeline.guests.helpers import wait_until
from tests.system.migrations import Command, listen, settings

SMALL = {
    "kind": "synthetic",
    "memory": "8MiB",
    "workload": {"working-set": "2MiB", "dirty-rate": "20MiB"},
}


@contextmanager
def relayed(folder: Path, damage: Damage | None = None) -> Iterator[tuple[Command, Relay]]:
    """A destination, and a relay in front of it."""
    with listen(folder) as there, Relay(there.uri, damage) as relay:
        yield there, relay


# A data connection.


class CuttingData:
    """Cuts all data connections once in round `round_no`, or in the last one (0), with frames in
    them that their workers have sent."""

    def __init__(self, relay: Relay, round_no: int) -> None:
        self._relay = relay
        self._round_no = round_no
        self.is_cut = False

    def at_first(self, coordinator: Coordinator) -> None:
        """Have what is sent from the start of that round on held back."""
        two_rounds(coordinator)

        def hold(round_no: int) -> None:
            is_last = coordinator.engine.dispatcher.final
            if self._round_no == (0 if is_last else round_no):
                self._relay.hold(Way.DATA)

        before_rounds(coordinator, hold)

    def on_tick(self, _: Coordinator) -> None:
        """Cut when something is held back."""
        if not self.is_cut and self._relay.holds_frames:
            self.is_cut = True
            self._relay.cut_data()
            self._relay.release()


@pytest.mark.parametrize("round_no", [2, 0], ids=["a round", "last round"])
def test_a_data_connection_is_cut(folder: Path, round_no: int) -> None:
    """Frames that went down with a connection: missing at the end, or waited for for ever."""
    config = settings(SMALL)
    with relayed(folder) as (there, relay), synthetic_guest(config) as guest:
        cutting = CuttingData(relay, round_no)
        here = leave(config, relay.uri, guest, on_tick=cutting.on_tick, at_first=cutting.at_first)
        assert cutting.is_cut
        assert (here.error_desc, here.status, here.verified) == (None, "completed", True)
        assert here.redone > 0
        assert there.result().self_check == "clean"


# The control connection. All phases at the same time: each waits for 3 s.


PHASES: dict[str, Callable[[c.Message, bool], bool]] = {
    "setup": lambda message, _: isinstance(message, c.Hello),
    "first round": lambda message, _: isinstance(message, c.RoundStart) and message.round_no == 1,
    "later round": lambda message, _: isinstance(message, c.RoundStart) and message.round_no == 2,
    "last round": lambda message, last: isinstance(message, c.RoundStart) and last,
    "verification": lambda message, _: isinstance(message, c.Verify),
    "device state": lambda message, _: isinstance(message, c.Devices),
    "commit": lambda message, _: isinstance(message, c.Commit),
    "end": lambda message, _: isinstance(message, c.Settled),
}
"""The message that opens the phase; `last`: the guest is stopped."""


class CuttingControl:
    """Cuts the control connection for 3 s when the source opens `phase`, with what it says then
    on the way."""

    def __init__(self, relay: Relay, phase: str) -> None:
        self._relay = relay
        self._opens = PHASES[phase]
        self.is_cut = False

    def at_first(self, coordinator: Coordinator) -> None:
        """Have what the source says then held back."""
        two_rounds(coordinator)
        send, dispatcher = coordinator.engine.link.send, coordinator.engine.dispatcher

        def say(message: c.AnyMessage) -> None:
            if not self.is_cut and self._opens(message, dispatcher.final):
                self._relay.hold(Way.QUESTIONS)
            send(message)

        coordinator.engine.link.send = say  # type: ignore[method-assign]

    def on_tick(self, _: Coordinator) -> None:
        """Cut when it is held back."""
        if not self.is_cut and self._relay.held:
            self.is_cut = True
            self._relay.cut_control(3.0)
            self._relay.release()


OUTSTAYED_S = 15.0
"""Half of the time for which a destination that has heard no last word stays, to be asked."""


@pytest.fixture(scope="module")
def cut_off() -> dict[str, tuple[Result, Result]]:
    """The results of both ends, by the phase in which the control connection was cut."""
    config = settings(SMALL)

    def cut_off_in(phase: str) -> tuple[Result, Result]:
        with relayed(folder) as (there, relay), synthetic_guest(config) as guest:
            cutting = CuttingControl(relay, phase)
            here = leave(
                config, relay.uri, guest, at_first=cutting.at_first, on_tick=cutting.on_tick
            )
            assert cutting.is_cut
            return here, there.result(within_s=OUTSTAYED_S)

    with nothing_left() as folder, ThreadPoolExecutor(len(PHASES)) as pool:
        return dict(zip(PHASES, pool.map(cut_off_in, PHASES), strict=True))


@pytest.mark.parametrize("phase", PHASES)
def test_the_control_connection_is_cut_for_3_s(
    cut_off: dict[str, tuple[Result, Result]], phase: str
) -> None:
    """A migration that fails, or stands still, because a message was lost; two guests, or none,
    because the word that one has started was lost; a destination that stays on to be asked."""
    here, there = cut_off[phase]
    assert (here.error_desc, here.status, here.verified) == (None, "completed", True)
    assert (here.total_time or 0) >= 3000
    assert here.guest_alive == "destination"
    assert there.self_check == "clean"


# Bits.


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
    config = settings(SMALL, codec="none")
    with (
        relayed(folder, FlipsAt([offset])) as (there, relay),
        synthetic_guest(config) as guest,
    ):
        here = leave(config, relay.uri, guest)
        assert relay.flipped == 1
        assert (here.error_desc, here.status, here.verified) == (None, "completed", True)
        assert there.result().self_check == "clean"


def test_a_frame_that_is_damaged_every_time(folder: Path) -> None:
    """A frame that is sent for ever, or given up without a word why; a guest that stands still."""
    config = settings(SMALL)
    with (
        relayed(folder, FlipsInFrame(3)) as (there, relay),
        synthetic_guest(config) as guest,
    ):
        here = leave(config, relay.uri, guest)
        assert relay.flipped == 4
        reason = "frame 3 did not arrive, redone 3 times: damaged frame"
        assert (here.status, here.guest_alive) == ("failed", "source")
        assert str(here.error_desc).startswith(reason)
        assert f"the source failed: {reason}" in str(there.result().error_desc)
        guest.statistics()
        wait_until(lambda: (guest.statistics().dirty_rate or 0) > 0)


# A guest that takes its time.


def test_a_guest_that_takes_longer_to_stop_than_silence_is_borne(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A source that is taken for one that is gone, each time, because its guest's disk is slow."""
    config = settings(SMALL)
    with listen(folder) as there, synthetic_guest(config) as guest:
        stop = guest.stop

        def slowly() -> str:
            sleep(SILENCE_SECONDS + 1)
            return stop()

        monkeypatch.setattr(guest, "stop", slowly)
        here = leave(config, there.uri, guest)
        assert (here.error_desc, here.status, here.verified) == (None, "completed", True)
        assert there.result().self_check == "clean"
