"""Workers that take longer to start than the other end may be silent."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.system.migrations import both_ends, settings
from workers.pool import Pool

SILENCE_S = 2.0
START_S = 3.0


def test_workers_that_start_slowly(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An end that does not listen while it starts workers, and so takes the other one for dead."""
    wait = Pool._wait_until_up

    def wait_long(pool: Pool, tick: Callable[[], None]) -> None:
        until = time.monotonic() + START_S
        while time.monotonic() < until:
            pool.socket.poll(10)
            tick()
        wait(pool, tick)

    monkeypatch.setattr(Pool, "_wait_until_up", wait_long)
    monkeypatch.setattr("pipeline.control_link.SILENCE_SECONDS", SILENCE_S)
    here, there = both_ends(settings(), folder)
    assert (here.error_desc, there.error_desc) == (None, None)
