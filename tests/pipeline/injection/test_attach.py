"""Tracking from outside: exact, and unseen by the process that is tracked."""

import os
import signal
import statistics
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.injection import target
from pipeline.injection.attach import attach, why_not
from protocol.errors import GuestError
from tests.pipeline.guests.helpers import as_another_user, open_files, python, wait_until
from tests.pipeline.injection.victims import (
    LIMIT_S,
    LIMITED,
    NUMBERS,
    PAGES,
    Victim,
    needs_uffd,
    threads_state,
    victim,
)

pytestmark = needs_uffd

TRACE = """
import sys, time
from pipeline.injection import ptrace
ptrace.request(ptrace.SEIZE, int(sys.argv[1]), 0, 0)
print(1, flush=True)
time.sleep(3600)
"""
SAY_ONE = ("poll", "ppoll", "read")


@pytest.fixture(name="polls")
def _polls(tmp_path: Path) -> Iterator[Victim]:
    with victim(tmp_path, "poll") as found:
        yield found


@pytest.mark.parametrize("wait", NUMBERS)
def test_it_goes_on_as_before(tmp_path: Path, wait: str) -> None:
    """A wait that ends early, with EINTR or never; a register or a signal mask that is not back."""
    if wait == "vectors" and " avx2 " not in Path("/proc/cpuinfo").read_text():
        pytest.skip("no AVX2")
    with victim(tmp_path, wait) as found:
        for _ in range(3):
            attached = found.attach()
            found.check(attached)
            attached.close()
        result, code, lasted_s = found.end()
        timed_out = wait == "futex-limited"
        assert (result, code) == ((-1, 110) if timed_out else (int(wait in SAY_ONE), 0))
        if wait in LIMITED:
            assert LIMIT_S <= lasted_s < LIMIT_S + 0.5


def test_nothing_is_left(polls: Victim) -> None:
    """A descriptor in the process or in ours, pages that stay protected."""
    before = open_files()
    for _ in range(3):
        attached = polls.attach()
        assert polls.is_registered()
        assert polls.userfaultfds() == 0
        attached.close()
        attached.close()
        assert not polls.is_registered()
    assert open_files() == before


def test_its_stack_is_as_it_was(polls: Victim) -> None:
    """What was laid out below its stack stays there."""
    stack = int(Path(f"/proc/{polls.pid}/syscall").read_text().split()[-2], 16)
    with Path(f"/proc/{polls.pid}/mem").open("rb", buffering=0) as memory:
        seen = []
        for _ in range(2):
            memory.seek(stack - (16 << 10))
            seen.append(memory.read(16 << 10))
            polls.attach().close()
    assert seen[0] == seen[1]


@pytest.mark.parametrize("times", [20, pytest.param(200, marks=pytest.mark.more)])
def test_many_times_in_a_row(polls: Victim, times: int) -> None:
    """Harm that is rare; a stop that a guest would feel."""
    held = []
    for _ in range(times):
        attached = polls.attach()
        held.append(attached.held_ms)
        polls.check(attached)
        attached.close()
    assert polls.end()[:2] == (1, 0)
    print(f"held for {statistics.median(held):.2f} ms, at most {max(held):.2f}")  # noqa: T201
    assert statistics.median(held) < 5


def test_a_stopped_process_stays_stopped(polls: Victim) -> None:
    """An attach that lets a writer go on that somebody stopped."""
    os.kill(polls.pid, signal.SIGSTOP)
    wait_until(lambda: threads_state(polls.pid) == {"T"})
    attached = polls.attach()
    wait_until(lambda: threads_state(polls.pid) == {"T"})
    assert polls.is_registered()
    attached.close()
    assert threads_state(polls.pid) == {"T"}
    os.kill(polls.pid, signal.SIGCONT)
    with polls.attach() as attached:
        polls.check(attached)
    assert polls.end()[:2] == (1, 0)


def test_another_tracer_is_named(polls: Victim) -> None:
    """A debugger that is in the way, and a message that says: not permitted."""
    with (
        python(TRACE, str(polls.pid)) as (tracer, _),
        pytest.raises(GuestError, match=rf"is being traced by process {tracer.pid}$"),
    ):
        polls.attach()
    attached = polls.attach()
    polls.check(attached)
    attached.close()


def test_memory_that_another_watches_is_refused(polls: Victim) -> None:
    """Tracking that is taken off somebody else's userfaultfd."""
    attached = polls.attach()
    with pytest.raises(GuestError, match="is watched by another userfaultfd"):
        polls.attach()
    polls.check(attached)
    attached.close()


def test_memory_that_is_not_there_is_refused(polls: Victim) -> None:
    """A registration that is half done and stays."""
    before = open_files()
    with pytest.raises(GuestError, match="the kernel does not protect its memory: Invalid"):
        attach(polls.pid, [*polls.ranges, (4096, 4096)])
    assert not polls.is_registered()
    assert open_files() == before


def test_a_process_that_is_gone() -> None:
    """A traceback."""
    with pytest.raises(GuestError, match=r"process 4194305 cannot be tracked .* is gone$"):
        attach(2**22 + 1, [])
    zombie = subprocess.Popen(["true"])
    os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
    with pytest.raises(GuestError, match=r"is gone|has no main thread any more"):
        attach(zombie.pid, [])
    zombie.wait()


def test_a_process_without_room_for_a_descriptor(polls: Victim) -> None:
    """A negative number that is taken for a descriptor."""
    limits = subprocess.run(["prlimit", "--pid", str(polls.pid), "--nofile=3"], check=False)
    assert limits.returncode == 0
    with pytest.raises(GuestError, match="gets no userfaultfd: Too many open files"):
        polls.attach()
    assert polls.end()[:2] == (1, 0)


def test_a_process_of_another_user() -> None:
    """ "Is gone", or a traceback, for one that we may not trace."""
    assert "it may not be traced by us" in as_another_user(lambda: why_not(1))


def test_a_program_of_another_architecture(tmp_path: Path) -> None:
    """64-bit calls in a thread that runs 32-bit code."""
    head = b"\x7fELF\1\1\1".ljust(16, b"\0")
    head += struct.pack("<HHIIIIIHHHHHH", 2, 3, 1, 0x8048054, 52, 0, 0, 52, 32, 1, 0, 0, 0)
    segment = struct.pack("<8I", 1, 0, 0x8048000, 0x8048000, 86, 86, 5, 4096)
    program = tmp_path / "endless"
    program.write_bytes(head + segment + b"\xeb\xfe")
    program.chmod(0o755)
    try:
        process = subprocess.Popen([program])
    except OSError as error:
        pytest.skip(f"no 32-bit programs here: {error}")
    try:
        with pytest.raises(GuestError, match="a program that is not for x86_64"):
            attach(process.pid, [])
    finally:
        process.kill()
        process.wait()


def test_a_process_that_filters_its_system_calls(tmp_path: Path) -> None:
    """A filter that ends the process for a call that it did not make itself."""
    with victim(tmp_path, "poll") as found:
        status = target._status(found.pid) | {"Seccomp": "2"}
        with pytest.raises(target.NotPossible, match="filters its system calls"):
            target._check_state(status, sandboxed=False)
        target._check_state(status, sandboxed=True)


@pytest.mark.parametrize(
    ("helper", "why"), [("exit 1", "the helper died"), ("exec sleep 60", "does not answer")]
)
def test_a_helper_that_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, helper: str, why: str
) -> None:
    """A wait without end, a descriptor or a process that is left."""
    script = tmp_path / "helper"
    script.write_text(f"#!/bin/sh\n{helper}\n")
    script.chmod(0o755)
    before = open_files()
    monkeypatch.setattr("sys.executable", str(script))
    monkeypatch.setattr("pipeline.injection.attach._ANSWER_S", 0.2 if "sleep" in helper else 5.0)
    with pytest.raises(GuestError, match=why):
        attach(os.getpid(), [])
    assert open_files() == before


def test_another_machine_is_no_x86_64(monkeypatch: pytest.MonkeyPatch) -> None:
    """Registers of another layout."""
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    with pytest.raises(GuestError, match="on x86_64, not on aarch64"):
        attach(os.getpid(), [(0, PAGES)])
