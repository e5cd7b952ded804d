"""A guest that dirties memory faster than it travels is slowed down, and has its pace back."""

import signal
from contextlib import ExitStack, closing
from pathlib import Path
from time import sleep
from typing import Any

import pytest

from pipeline.config.model import Config
from pipeline.guests.synthetic import SyntheticGuest
from pipeline.leftovers.cleanup import cleanup
from pipeline.progress import Progress
from pipeline.source.coordinator import Coordinator
from protocol.errors import ConfigError, GuestError
from protocol.uri import Uri
from tests.faults.leaving import leave, synthetic_guest
from tests.pipeline.guests.helpers import wait_until
from tests.system.migrations import MIB, Command, Destination, both_ends, migrate, nobody, settings
from tests.system.test_synthetic_guest import assert_moved

LINK = 24 * MIB
RATE = 2 * LINK
ROUNDS = 30
GUEST = {
    "kind": "synthetic",
    "memory": "16MiB",
    "workload": {"working-set": "8MiB", "dirty-rate": RATE, "content": "random"},
}
ON = {"auto-converge": True}


def config(guest: dict[str, Any] = GUEST, **keys: Any) -> dict[str, Any]:  # noqa: ANN401
    """A guest that dirties twice what the link carries."""
    limits = {"max-bandwidth": LINK, "downtime-limit": 60}
    return settings(guest, codec="none", verify="frames", parameters=limits, **keys)


def pace(guest: SyntheticGuest) -> float:
    """Bytes a second that it dirties."""
    guest.statistics()
    sleep(0.5)
    rate = guest.statistics().dirty_rate
    assert rate is not None
    return rate


def cancel_at(round_no: int) -> Any:  # noqa: ANN401 - a Look
    """Cancel when that round begins."""

    def look(coordinator: Coordinator) -> None:
        if coordinator.engine.dispatcher.round_no >= round_no:
            coordinator.cancel.set()

    return look


def test_without_it_thirty_rounds_are_not_enough(folder: Path) -> None:
    """A guest that would have converged by itself proves nothing below."""
    there = Destination(config(), folder)
    with synthetic_guest(config()) as guest:
        here = leave(config(), there.uri, guest, on_tick=cancel_at(ROUNDS))
        assert here.status == "cancelled"
        assert len(here.rounds) >= ROUNDS
    assert (here.cpu_throttle_percentage, here.cpu_throttle_by) == (None, None)
    there.result()


def test_it_converges(folder: Path) -> None:
    """One that is never slow enough, or arrives slow."""
    here, there = both_ends(config(capabilities=ON), folder)
    assert_moved(here, there)
    whats = {one.what for one in here.decisions}
    climbed = [int(one.why.split(" %")[0]) for one in here.decisions]
    assert whats == {"throttle"}
    assert climbed == [20, 30, 40, 50, 60, 70, 80, 90, 99][: len(climbed)]
    assert len(climbed) > 3
    assert (here.cpu_throttle_percentage, here.cpu_throttle_by) == (climbed[-1], "workload")


def slowed(guest: SyntheticGuest) -> list[int]:
    """What is taken from it, from now on."""
    taken, throttles = [], guest.throttles

    def watched() -> Any:  # noqa: ANN401
        (throttle,) = throttles()
        take = throttle.take

        def note(percent: int) -> None:
            take(percent)
            taken.append(percent)

        throttle.take = note  # type: ignore[method-assign]
        return (throttle,)

    guest.throttles = watched  # type: ignore[method-assign]
    return taken


def test_a_cancelled_guest_has_its_pace_back(folder: Path) -> None:
    """A guest that stays slow where it was."""
    there = Destination(config(capabilities=ON), folder)
    with synthetic_guest(config()) as guest:
        taken = slowed(guest)

        def look(coordinator: Coordinator) -> None:
            if 30 in taken:
                coordinator.cancel.set()

        here = leave(config(capabilities=ON), there.uri, guest, on_tick=look)
        assert (here.status, here.cpu_throttle_percentage) == ("cancelled", 30)
        assert taken == [20, 30, 0]
        assert pace(guest) > 0.8 * RATE
    there.result()


def test_one_that_was_stopped_goes_on_at_its_pace(folder: Path) -> None:
    """A switch-over that fails, with a guest that was slow before."""
    there = Destination(config(capabilities=ON), folder)
    with synthetic_guest(config()) as guest:
        save = guest.save_devices

        def fail() -> Any:  # noqa: ANN401
            save()
            raise GuestError("a fault of the test")

        guest.save_devices = fail  # type: ignore[method-assign]
        here = leave(config(capabilities=ON), there.uri, guest)
        assert (here.status, here.error_desc) == ("failed", "a fault of the test")
        assert here.cpu_throttle_percentage is not None
        assert pace(guest) > 0.8 * RATE
    there.result()


def test_a_timeout_can_ask_for_it(folder: Path) -> None:
    """A guest that is slowed down before it has to be, or not even then."""
    policy = {"completion-timeout": 3, "then": "throttle"}
    here, there = both_ends(config(convergence=policy), folder)
    assert_moved(here, there)
    whats = [one.what for one in here.decisions]
    assert whats.count("throttle") > 4
    assert "not done in 3 s" in here.decisions[0].why
    assert here.decisions[1].why.startswith("20 %")


def test_a_killed_command_leaves_no_slow_guest(folder: Path) -> None:
    """SIGKILL of the source, with nobody to give the guest its pace back."""
    path = folder / "guest"
    with ExitStack() as stack:
        options = ["--socket", str(path)]
        alive = stack.enter_context(Command(folder, "guest", *options, config=config()))
        alive.wait_for("the guest is")
        moving = config({"kind": "synthetic", "socket": str(path)}, capabilities=ON)
        run = stack.enter_context(Command(folder, "run", config=moving))
        run.wait_for("throttle 20 %")
        run.process.send_signal(signal.SIGKILL)
        run.process.wait()
        wait_until(lambda: "a migration is over" in alive.words)
        with closing(SyntheticGuest.attach(path)) as guest:
            assert pace(guest) > 0.8 * RATE
        alive.process.terminate()
        assert alive.code() == 0
    cleanup()


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"capabilities": ON}, "capabilities.auto-converge"),
        ({"convergence": {"then": "throttle"}}, "convergence.then"),
    ],
)
def test_a_file_has_no_pace(folder: Path, keys: dict[str, Any], words: str) -> None:
    """A capability that does nothing, in silence."""
    memory = folder / "memory"
    memory.write_bytes(bytes(MIB))
    asked = settings({"kind": "file", "path": str(memory)}, **keys)
    uri = Uri("unix", path=str(folder / "control"))
    with pytest.raises(ConfigError, match=rf"{words}: memory that is a file has no processors"):
        migrate(Config.model_validate(asked), uri, nobody)
    memory.unlink()


def test_what_is_taken_is_told(folder: Path) -> None:
    """An operator who cannot see why a guest has become slow."""
    seen: list[Progress] = []
    there = Destination(config(capabilities=ON), folder)
    migrate(Config.model_validate(config(capabilities=ON)), there.uri, seen.append)
    there.result()
    told = [one.throttle for one in seen]
    assert told[0] is None
    assert {20, 30} <= {percent for percent in told if percent is not None}
    assert told[-1] is None


class Unwilling:
    """A Throttle that does not work."""

    how = "nothing"

    def __init__(self) -> None:
        self.released = 0

    def effects(self) -> tuple[()]:
        """None."""
        return ()

    def take(self, percent: int) -> None:
        """It cannot."""
        raise GuestError(f"{percent} % are too much")

    def release(self) -> None:
        """As far as it came."""
        self.released += 1


def test_what_does_not_work_harms_no_migration(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A guest that could be moved, and is not, because it cannot be slowed down."""
    there, broken = Destination(config(capabilities=ON), folder), Unwilling()
    with synthetic_guest(config()) as guest:
        (works,) = guest.throttles()
        guest.throttles = lambda: (broken, works)  # type: ignore[method-assign,assignment,return-value]
        here = leave(config(capabilities=ON), there.uri, guest)
    assert_moved(here, there.result())
    assert here.cpu_throttle_by == "workload"
    assert broken.released == 1


def test_a_guest_without_means_keeps_its_pace(folder: Path) -> None:
    """An end of the migration, or of the process, for want of a throttle."""
    there = Destination(config(capabilities=ON), folder)
    with synthetic_guest(config()) as guest:
        guest.throttles = lambda: ()  # type: ignore[method-assign,assignment,return-value]
        here = leave(config(capabilities=ON), there.uri, guest, on_tick=cancel_at(ROUNDS))
        assert (here.status, here.cpu_throttle_percentage) == ("cancelled", None)
    there.result()
