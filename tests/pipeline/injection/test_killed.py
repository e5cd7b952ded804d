"""SIGKILL at any moment of an attach: the process that was to be tracked lives, as it was."""

import errno
import os
import random
import select
import signal
from pathlib import Path

import psutil
import pytest

from tests.pipeline.guests.helpers import wait_until
from tests.pipeline.injection.victims import (
    SETREGS_STEP,
    command,
    kill_helper_before,
    needs_uffd,
    threads_state,
    victim,
)

pytestmark = needs_uffd

STEPS = 40
"""More than there are: all that the helper asks of ptrace, writes and takes."""
HELPERS_A_STOP = 8
"""Killed one after the other, 4 KiB of stack each, before a stopped process may go on."""
TIMES_OUT = """
import signal, sys
from pipeline.injection import __main__, ptrace
left, waits = int(sys.argv[2]), ptrace.wait_for_stop

def wait(*arguments):
    global left
    if left == 0:
        raise TimeoutError
    left -= 1
    return waits(*arguments)

ptrace.wait_for_stop = wait
signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
try:
    __main__.fetch(int(sys.argv[1]), sandboxed=False)
except __main__.NotPossible as error:
    print(error)
"""
COMMAND = """
import json, sys, time
from pipeline.injection.attach import attach
print(1, flush=True)
while True:
    attached = attach(int(sys.argv[1]), [json.loads(sys.argv[2])])
    print(2, flush=True)
    attached.close()
"""


@pytest.mark.parametrize("wait", ["ppoll", "futex", "read", "busy", "vectors"])
def test_the_helper_is_killed_before_each_step(tmp_path: Path, wait: str) -> None:
    """A thread that goes on with our registers, or with its signals blocked."""
    if wait == "vectors" and " avx2 " not in Path("/proc/cpuinfo").read_text():
        pytest.skip("no AVX2")
    with victim(tmp_path, wait) as found:
        step = 0
        while kill_helper_before(step, found.pid):
            found.write(5)
            wait_until(lambda: not threads_state(found.pid) & {"T", "t"})
            wait_until(lambda: _nothing_is_blocked(found.pid))
            step += 1
        assert 20 < step < STEPS
        assert found.userfaultfds() <= step
        with found.attach() as attached:
            found.check(attached)
        assert found.end()[0] in (0, 1)


@pytest.mark.parametrize("wait", ["poll", "nanosleep", "futex-limited"])
def test_a_wait_that_nobody_else_can_go_on_with_ends_as_by_a_signal(
    tmp_path: Path, wait: str
) -> None:
    """One that says it is over, or returns a number of the kernel's own."""
    with victim(tmp_path, wait) as found:
        assert kill_helper_before(SETREGS_STEP + 1, found.pid)
        wait_until(lambda: _nothing_is_blocked(found.pid))
        result, code, _ = found.end()
        assert (result, code) == (-1, errno.EINTR)


def test_a_stopped_process_whose_helper_is_killed_stays_stopped(tmp_path: Path) -> None:
    """One that goes on because the kernel let it go; one that cannot go on any more."""
    with victim(tmp_path, "ppoll") as found:
        step = 0
        os.kill(found.pid, signal.SIGSTOP)
        while kill_helper_before(step, found.pid):
            wait_until(lambda: threads_state(found.pid) == {"T"})
            if step % HELPERS_A_STOP == 0:  # its way back through each is on its stack
                os.kill(found.pid, signal.SIGCONT)
                found.wait_until_it_waits()
                os.kill(found.pid, signal.SIGSTOP)
            step += 1
        os.kill(found.pid, signal.SIGCONT)
        found.write(5)
        with found.attach() as attached:
            found.check(attached)
        assert found.end()[:2] == (1, 0)


@pytest.mark.parametrize("wait", ["ppoll", "read", "busy"])
def test_a_thread_that_does_not_stop_in_time(tmp_path: Path, wait: str) -> None:
    """One that is left with what was changed so far, or waits for its tracer."""
    with victim(tmp_path, wait) as found:
        said: list[str] = []
        while not said or said[-1]:
            with command(TIMES_OUT, str(found.pid), str(len(said))) as helper:
                assert helper.stdout
                said.append(helper.stdout.read().decode().strip())
            assert helper.returncode == 0
            found.write(5)
            wait_until(lambda: _nothing_is_blocked(found.pid))
        assert said[0] == "did not stop within 2 s"
        assert set(said[1:-2]) == {"did not come back from a system call"}
        assert said[-2] == "did not stop again"
        with found.attach() as attached:
            found.check(attached)
        assert found.end()[0] in (0, 1)


@pytest.mark.parametrize("times", [20, pytest.param(100, marks=pytest.mark.more)])
def test_the_command_is_killed_at_any_moment(tmp_path: Path, times: int) -> None:
    """A registration or a descriptor that outlives its command; harm to the process."""
    rng = random.Random(5)
    with victim(tmp_path, "poll") as found:
        where = str([*found.ranges[0]])
        for _ in range(times):
            with command(COMMAND, str(found.pid), where) as killed:
                assert killed.stdout
                killed.stdout.readline()
                select.select([], [], [], rng.uniform(0, 0.2))
            found.write(5)
            wait_until(lambda: found.userfaultfds() == 0 and not found.is_registered())
        wait_until(lambda: not _has_helpers(found.pid))
        with found.attach() as attached:
            found.check(attached)
        assert found.end()[:2] == (1, 0)


def _nothing_is_blocked(pid: int) -> bool:
    return "SigBlk:\t0000000000000000\n" in Path(f"/proc/{pid}/status").read_text()


def _has_helpers(pid: int) -> bool:
    """Whether a command that was killed has left one that is not at its end yet."""
    commands = [one.info["cmdline"] or [] for one in psutil.process_iter(["cmdline"])]
    return any("pipeline.injection" in words and str(pid) in words for words in commands)
