"""Records of commands that are dead, and what they have left."""

import os
import signal
import subprocess
from pathlib import Path

from msgspec.structs import replace

from pipeline.records.processes import Process, boot
from pipeline.records.record import Record, StoppedWriter
from pipeline.records.store import SessionRecord, create_record
from protocol.commit import Step
from protocol.session import Role
from tests.pipeline.guests.helpers import wait_until

SESSION = "cd" * 16
DEAD = Process(1 << 22, 1, boot())


def on_record(role: Role, *steps: Step, **facts: object) -> SessionRecord:
    """The record of an end whose command is dead, at the last of `steps`."""
    first = Record(session=SESSION, role=role, name="guest", owner=DEAD)
    record = create_record(replace(first, **facts))
    for step in steps:
        assert record.change(record.step, step)
    return record


def state_of(process: Process) -> str:
    """The letter of its state."""
    stat = Path(f"/proc/{process.pid}/stat").read_text()
    return stat.rpartition(")")[2].split()[0]


def stopped(writer: Process) -> StoppedWriter:
    """Stop it, as a migration does."""
    os.kill(writer.pid, signal.SIGSTOP)
    wait_until(lambda: state_of(writer) == "T")
    return StoppedWriter(writer)


def forget(*records: SessionRecord) -> None:
    """Remove them, and let go."""
    for record in records:
        record.remove()
        record.close()


def say(child: subprocess.Popen[str], words: str) -> None:
    """A line to its standard input."""
    assert child.stdin is not None
    child.stdin.write(words + "\n")
    child.stdin.flush()


def heard(child: subprocess.Popen[str]) -> str:
    """The next line that it says."""
    assert child.stdout is not None
    return child.stdout.readline().strip()
