"""What a test may leave behind: no process, no descriptor, no temporary file.

Processes are known by their environment, which their children inherit whoever adopts
them; those that this process's fork server made, by being its children.
"""

import gc
import multiprocessing
import os
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

import psutil

from pipeline.records.store import HISTORY
from workers.fork_server import warm_up

PATIENCE_S = 5.0
"""Workers whose command was killed end by themselves, and so does a guest."""


@contextmanager
def nothing_left() -> Iterator[Path]:
    """A folder for sockets and temporary files, and another one for records, by the environment;
    AssertionError for what is left in the end.

    What a test makes in the folder, it removes.
    """
    warm_up()  # the fork server of this process stays
    with TemporaryDirectory(prefix="t-") as name, TemporaryDirectory(prefix="s-") as state:
        folder = Path(name)
        descriptors, children = _descriptors(), _children()
        with (
            mock.patch.dict(os.environ, {"TMPDIR": name, "XDG_STATE_HOME": state}),
            mock.patch.object(tempfile, "tempdir", name),
        ):
            yield folder
        until = time.monotonic() + PATIENCE_S
        while left := [*_left(folder, descriptors, children), *open_records(Path(state))]:
            assert time.monotonic() < until, f"left behind: {left}"
            multiprocessing.active_children()  # those whose end the fork server was late to tell
            gc.collect()
            time.sleep(0.01)


def processes_of(folder: Path) -> list[psutil.Process]:
    """The commands, guests and workers that were started with `folder` for temporary files."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get("TMPDIR") == str(folder):
                found.append(process)
    return found


def _left(folder: Path, descriptors: Counter[str], children: set[psutil.Process]) -> list[str]:
    return [
        *(path.name for path in folder.rglob("*")),
        *(str(process) for process in {*processes_of(folder), *_children() - children}),
        *(_descriptors() - descriptors),
    ]


def open_records(state: Path) -> list[str]:
    """All but a destination's closed ones, which a source that was off may still ask for."""
    paths = set(state.rglob("*.jsonl")) - set(state.rglob(HISTORY))
    records = [(path.name, path.read_bytes()) for path in paths]
    return [name for name, lines in records if b'"closed":true' not in lines or "-source" in name]


def _children() -> set[psutil.Process]:
    return set(psutil.Process().children(recursive=True))


def _descriptors() -> Counter[str]:
    """What this process has open, by kind or path."""
    found: Counter[str] = Counter()
    for fd in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # the one that lists them
            found[str(fd.readlink()).partition(":[")[0]] += 1
    return found
