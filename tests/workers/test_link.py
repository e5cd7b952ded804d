"""A worker's side of its pool: it ends with the process behind it, and with nothing else."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil

from tests.workers import bodies
from tests.workers.driving import Context, hear, own, pid, started, until
from workers.messages import Checked, Grant

ROOT = Path(__file__).parents[2]


def test_workers_of_a_killed_command_end_and_clear_up(folder: Path) -> None:
    """Workers, sockets and folders that stay on the machine for every command that was killed."""
    command = [sys.executable, "-m", "tests.workers.orphan"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            assert process.stdout is not None
            workers = [psutil.Process(int(pid)) for pid in process.stdout.readline().split()]
            assert len(workers) == 3
            assert list(folder.iterdir())
        finally:
            process.kill()
        _, alive = psutil.wait_procs(workers, timeout=5)
    assert not alive
    until(lambda: not list(folder.iterdir()))


def test_a_worker_ignores_the_interrupt_from_the_terminal(context: Context) -> None:
    """Ctrl-C that kills the workers of a migration before the command can end it well."""
    with started(context, bodies.obedient, own) as pool:
        os.kill(pid(pool), signal.SIGINT)
        pool.send(0, Grant([4]))
        assert hear(pool, Checked).job == 4
