"""What waits at a destination: started, and found to be there, or not."""

import time
from pathlib import Path

import pytest

from pipeline.cluster import ends
from pipeline.cluster.ends import Ended, Order, attend, run_hook
from pipeline.cluster.folder import EndFolder
from pipeline.cluster.launching import end
from protocol.errors import MigrationError
from tests.pipeline.guests.helpers import wait_until


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


@pytest.mark.parametrize("given_up", [True, False])
def test_a_hook_that_does_not_end_is_ended_with_all_that_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, given_up: bool
) -> None:
    """Processes that nobody knows of, one more for each attempt; a cancel that waits for a hook."""
    monkeypatch.setattr(ends, "HOOK_S", 60 if given_up else 0.5)
    pids = tmp_path / "pids"
    script = f"sleep 60 & echo $! $$ > {pids}; wait"
    with pytest.raises(MigrationError, match="given up" if given_up else r"not done in 0\.5 s"):
        run_hook(["sh", "-c", script], tmp_path / "log", {}, lambda: given_up and pids.exists())
    for pid in pids.read_text().split():
        wait_until(lambda pid=pid: is_over(pid))  # type: ignore[misc]


def is_over(pid: str) -> bool:
    """Whether that process runs no more; nobody may have waited for it yet."""
    status = Path("/proc", pid, "stat")
    return not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "Z"


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["sh", "-c", "echo no disk; exit 4"], "hook sh: exit code 4: no disk"),
        (["/no/such/hook"], "hook /no/such/hook: .*No such file"),
        (["echo", "a\0b"], "hook echo: .*null"),
    ],
)
def test_a_hook_that_fails_says_why(tmp_path: Path, command: list[str], words: str) -> None:
    """An attempt that fails, and nobody knows by what."""
    with pytest.raises(MigrationError, match=words):
        run_hook(command, tmp_path / "log", {})
