"""One temporary folder for all that a command and its workers make."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.util import Finalize
from pathlib import Path

import msgspec

from pipeline.records.processes import OWNER, this_process

_LAST = -200
"""Behind the removal of multiprocessing's own folder, which lies in ours and has -100."""


@contextmanager
def own_temporary_folder() -> Iterator[None]:
    """While this lasts temporary files of this process go to a folder in which a file tells
    `cleanup` whose it is. It goes with the process: the fork server has its socket there."""
    before = tempfile.tempdir
    folder = tempfile.mkdtemp(prefix=f"pageferry-{os.getpid()}-")
    Finalize(None, shutil.rmtree, args=(folder, True), exitpriority=_LAST)
    owner = Path(folder, OWNER)
    owner.write_bytes(msgspec.json.encode(this_process()))
    tempfile.tempdir = folder
    try:
        yield
    finally:
        tempfile.tempdir = before
        if list(Path(folder).iterdir()) == [owner]:
            shutil.rmtree(folder, ignore_errors=True)
