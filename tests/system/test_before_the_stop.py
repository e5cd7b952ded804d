"""Until the guest is stopped: nothing is on its way then, and who never gets that far is helped."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.source.coordinator import Coordinator
from tests.faults.leaving import leave, synthetic_guest
from tests.system.migrations import Destination, both_ends, settings
from tests.system.test_synthetic_guest import NEEDS_UFFD, assert_moved

TRACKERS = [pytest.param("uffd", marks=NEEDS_UFFD), "hash"]
IDLE = {"kind": "synthetic", "memory": "64MiB", "workload": {"pattern": "idle"}}
TOO_BUSY = {
    "kind": "synthetic",
    "memory": "32MiB",
    "workload": {"working-set": "8MiB", "dirty-rate": "32MiB"},
}


@pytest.mark.parametrize("tracker", TRACKERS)
def test_what_is_on_its_way_arrives_before_the_stop(folder: Path, tracker: str) -> None:
    """16 MiB of frames that arrive while the guest stands still."""
    config = settings(IDLE, tracker=tracker)
    there, stopped = Destination(config, folder), []
    with synthetic_guest(config) as guest:
        stop = guest.stop

        def watch(coordinator: Coordinator) -> None:
            def look_and_stop() -> str:
                engine = coordinator.engine
                fence_fell = engine.statistics.rounds[-1].ended_ns > 0
                stopped.append(engine.dispatcher.all_applied and fence_fell)
                return stop()

            guest.stop = look_and_stop  # type: ignore[method-assign]

        here = leave(config, there.uri, guest, at_first=watch)
    assert_moved(here, there.result())
    assert stopped == [True]


def test_what_was_written_meanwhile_is_looked_for(folder: Path) -> None:
    """A guest that writes while the last frames arrive, and all of it is downtime."""
    config = settings(IDLE, verify="frames", parameters={"downtime-limit": 60})
    there = Destination(config, folder)

    def find_all_once(coordinator: Coordinator) -> None:
        engine, still_fits, asked = coordinator.engine, coordinator.pacing.still_fits, list[int]()

        def write_and_ask(fence_ns: int) -> bool:
            if not asked:
                engine.dirty.mark_extents(0, [(0, engine.block_pages[0])])
            asked.append(engine.dispatcher.round_no)
            return still_fits(fence_ns)

        coordinator.pacing.still_fits = write_and_ask  # type: ignore[method-assign]

    with synthetic_guest(config) as guest:
        here = leave(config, there.uri, guest, at_first=find_all_once)
    assert_moved(here, there.result())
    pages = [one.pages for one in here.rounds]
    assert pages.count(64 * 256) == 1, "sent while the guest ran"
    assert pages[-1] < 1000


def hopeless(**convergence: Any) -> dict[str, Any]:  # noqa: ANN401
    """A guest that dirties more than the wire takes."""
    limits = {"max-bandwidth": "6MiB", "downtime-limit": 100}
    return settings(TOO_BUSY, codec="none", parameters=limits, convergence=convergence)


def test_a_migration_without_progress_is_ended(folder: Path) -> None:
    """One that somebody has to watch, and to cancel."""
    here, there = both_ends(hopeless(**{"progress-timeout": 2}), folder)
    assert (here.status, here.guest_alive) == ("failed", "source")
    assert "not converging: no progress in 2 s" in str(here.error_desc)
    assert str(here.error_desc) in str(there.error_desc)
    (decision,) = here.decisions
    assert (decision.what, decision.why) == ("cancel", here.error_desc)
    assert decision.ms > 2000


def test_its_downtime_can_be_accepted(folder: Path) -> None:
    """A guest that has to leave, whatever that takes."""
    policy = {"completion-timeout": 3, "then": "switch-over"}
    here, there = both_ends(hopeless(**policy), folder)
    assert_moved(here, there)
    assert [one.what for one in here.decisions] == ["switch-over"]
    assert "not done in 3 s (3 s for each of 1.0 GiB)" in here.decisions[0].why


def test_the_downtime_limit_is_stepped_up(folder: Path) -> None:
    """The whole limit given at the beginning, where a shorter one would do."""
    policy = {"downtime-start": 30, "downtime-steps": 4, "downtime-delay": 1}
    config = hopeless(**policy)
    config["parameters"] |= {"max-bandwidth": "40MiB", "downtime-limit": 2000}
    here, there = both_ends(config, folder)
    assert_moved(here, there)
    assert here.decisions
    assert {one.what for one in here.decisions} == {"downtime-limit"}
    assert here.decisions[-1].why.endswith(" of 4 to 2000 ms")
