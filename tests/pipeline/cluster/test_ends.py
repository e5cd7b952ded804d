"""What waits at a destination: started, and found to be there, or not."""

import time
from pathlib import Path

import pytest

from pipeline.cluster.ends import Ended, Order, attend
from pipeline.cluster.folder import EndFolder
from pipeline.cluster.launching import end


def start(folder: Path, script: str, *, within_s: float = 60) -> Ended:
    """What comes of a destination for which `script` starts what waits."""
    order = Order("t" * 16, "destination", ("--uri", "tcp:127.0.0.1:x"), {},
                  start=("sh", "-c", script), socket=str(folder / "socket"),
                  start_s=within_s)  # fmt: skip
    return attend(order, lambda _: None)


@pytest.fixture(autouse=True)
def _own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def test_one_that_ends_is_not_waited_for(tmp_path: Path) -> None:
    """A minute for each attempt, and no word of why."""
    began = time.monotonic()
    found = start(tmp_path, "echo no memory left; exit 3")
    assert (found.begun, found.words) == (False, "start sh: exit code 3: no memory left")
    assert time.monotonic() - began < 30


def test_one_that_goes_on_elsewhere_is(tmp_path: Path) -> None:
    """A daemon that is taken for one that has failed."""
    found = start(tmp_path, "exit 0", within_s=1)
    assert found.words == f"nothing listens at {tmp_path}/socket in 1 s"


def test_one_that_is_not_there_in_time_is_ended(tmp_path: Path) -> None:
    """A process that is left to nobody."""
    assert not start(tmp_path, "exec sleep 60", within_s=0.5).begun
    process = EndFolder("t" * 16, "destination").maybe_waiting()
    assert process is not None
    assert not process.is_alive
    end(process)
