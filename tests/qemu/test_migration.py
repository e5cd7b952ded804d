"""A real QEMU moves through the pipeline: its guest goes on where it was, nothing damaged."""

from pathlib import Path

import pytest

from tests.pipeline.injection.victims import needs_uffd
from tests.qemu.pairs import GUEST, needs_kvm, needs_qemu, pair
from tests.system.migrations import Command


@needs_qemu
@pytest.mark.parametrize("accel", ["tcg", pytest.param("kvm", marks=[needs_kvm, pytest.mark.slow])])
@pytest.mark.parametrize("tracker", ["hash", pytest.param("uffd", marks=needs_uffd)])
def test_it_moves(folder: Path, accel: str, tracker: str) -> None:
    """A guest that starts anew, twice or nowhere, or whose memory was damaged on the way."""
    with pair(folder, accel=accel) as machines:
        with Command(folder, "run", config=machines.config(tracker=tracker)) as run:
            assert run.code() == 0, run.words
            result = run.result()
        machines.assert_moved(GUEST.ticks_of_a_pass)
        assert (machines.here.status(), result.tracker) == ("postmigrate", tracker)
        assert (result.verified, result.self_check) == (True, None)
        gap_ms = machines.here.gap(machines.there)[0] * 1000
        assert abs(gap_ms - (result.downtime or 0)) <= max(30, 0.2 * gap_ms)
