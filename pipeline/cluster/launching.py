"""Starts processes from a thread of many: each ends with this process, or lives on.

What asks the kernel to be told of its parent's end is told of the end of the *thread* that started
it. So one thread, which lives as long as the process, starts all.
"""

import os
import signal
import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from time import monotonic, sleep

from pipeline.records.processes import Process
from pipeline.signals import end_with

LOOK_S = 0.05
END_S = 5.0
"""For one that was told to end, before it is killed."""
_LAUNCHER = ThreadPoolExecutor(1, "launcher")
_started: dict[int, subprocess.Popen[bytes]] = {}
"""By pid: to be waited for."""


def start_with_us(command: Sequence[str], log: Path, first: Callable[[], object]) -> int:
    """Start `command`, which gets a SIGTERM when this process ends, and does `first` before it is
    what it becomes; its pid. OSError, or SubprocessError where `first` fails."""
    return _start(command, log, partial(_end_with, os.getpid(), first)).pid


def start_for_itself(
    command: Sequence[str], log: Path, first: Callable[[], object]
) -> Callable[[], int | None]:
    """Start `command`, which lives on whatever becomes of this process, after `first` as above;
    what tells its exit code, None while it lives."""
    return _start(command, log, partial(_live_on, first)).poll


def _start(
    command: Sequence[str], log: Path, first: Callable[[], object]
) -> subprocess.Popen[bytes]:
    with log.open("ab") as words:
        process = _LAUNCHER.submit(
            subprocess.Popen[bytes],
            command,
            stdin=subprocess.DEVNULL,
            stdout=words,
            stderr=words,
            preexec_fn=first,
        ).result()
    _started[process.pid] = process
    return process


def reap() -> None:
    """Wait for those that have ended, so that none is left a zombie."""
    for pid, process in list(_started.items()):
        if process.poll() is not None:
            _started.pop(pid, None)


def end(process: Process | None) -> None:
    """See that it is gone: it is told to end, and killed where it does not."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        until = monotonic() + END_S
        if process is None or not process.is_alive:
            break
        _signal(process.pid, number)
        while process.is_alive and monotonic() < until:
            reap()
            sleep(LOOK_S)
    reap()


def _signal(pid: int, number: int) -> None:
    """To it, and to what it has started, where it leads a group of its own."""
    with suppress(ProcessLookupError):
        if os.getpgid(pid) == pid:
            os.killpg(pid, number)
        else:
            os.kill(pid, number)


def _live_on(first: Callable[[], object]) -> None:
    os.setsid()
    first()


def _end_with(parent: int, first: Callable[[], object]) -> None:
    end_with(parent)
    first()
