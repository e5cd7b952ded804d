"""What a host keeps of one end of an attempt: whether it was begun, and how it ended.

The file `process` is made once, by the end itself before it is what it becomes, or by whoever
forbids it to begin; so an attempt that was given up never begins later, and none begins twice.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from threading import get_ident
from time import time

import msgspec

from pipeline.records.files import read_small
from pipeline.records.processes import Process, this_process
from pipeline.records.store import make_state_folder
from pipeline.result import Result
from protocol.session import Role

KEPT_FOR = timedelta(days=30)
_VOID = b"null"


class EndFolder:
    """Of the end `role` of the attempt `token`."""

    def __init__(self, token: str, role: Role) -> None:
        attempts = make_state_folder() / "attempts"
        self.path = attempts / f"{token}-{role}"
        self.config = self.path / "config.yaml"
        self.result_path = self.path / "result.json"
        self.log = self.path / "log"
        self.qmp = self.path / "qmp"
        self.words = self.path / "words"
        self._process = self.path / "process"
        self._waits = self.path / "waits"

    def claim(self) -> bool:
        """Make it; False where it was made before."""
        try:
            self.path.mkdir(parents=True)
        except FileExistsError:
            return False
        return True

    def begin(self) -> None:
        """In the process of the end: from here on it exists. FileExistsError where it is not to."""
        self._put(self._process, msgspec.json.encode(this_process()))

    def forbid(self) -> bool:
        """See that it never begins; False where it has begun."""
        self.path.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            self._put(self._process, _VOID)
        return self.is_forbidden

    @property
    def is_forbidden(self) -> bool:
        """Whether it never begins."""
        return self._process.exists() and self._process.read_bytes() == _VOID

    def maybe_process(self) -> Process | None:
        """The process of the end; None where none has begun, or ever will."""
        return _maybe_process(self._process)

    def maybe_result(self) -> Result | None:
        """What it left, if it did."""
        try:
            return msgspec.json.decode(self.result_path.read_bytes(), type=Result)
        except (OSError, msgspec.DecodeError):
            return None

    def note_waiting(self) -> None:
        """In the process that is to be filled: keep which one it is. FileExistsError where none is
        to be."""
        if self.is_forbidden:
            raise FileExistsError
        self._put(self._waits, msgspec.json.encode(this_process()))

    def maybe_waiting(self) -> Process | None:
        """The process that was started to be filled."""
        return _maybe_process(self._waits)

    def last_words(self) -> str:
        """The last thing that was complained of."""
        for line in reversed(_lines(self.log)):
            with suppress(msgspec.DecodeError):
                said = msgspec.json.decode(line)
                if isinstance(said, dict) and said.get("event") != "progress":
                    return str(said.get("event"))
        return "it left no word"

    def _put(self, path: Path, data: bytes) -> None:
        """Whole and flushed before it has its name; FileExistsError where there is one."""
        new = path.with_suffix(f".{os.getpid()}-{get_ident()}.new")
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, data)
            os.fsync(fd)
            os.link(new, path)
        finally:
            os.close(fd)
            new.unlink()


def _maybe_process(path: Path) -> Process | None:
    try:
        return msgspec.json.decode(read_small(path), type=Process | None)
    except (OSError, msgspec.DecodeError):
        return None


def _lines(path: Path) -> list[bytes]:
    with suppress(OSError):
        return path.read_bytes().splitlines()
    return []


def new_lines(path: Path, at: int) -> tuple[list[bytes], int]:
    """Whole lines behind the byte `at`, and where the next ones begin."""
    with suppress(OSError), path.open("rb") as file:
        file.seek(at)
        whole = file.read().rpartition(b"\n")[0]
        if whole:
            return whole.split(b"\n"), at + len(whole) + 1
    return [], at


def forget_old() -> None:
    """Remove what nobody asks for any more."""
    for path in _old(make_state_folder() / "attempts"):
        shutil.rmtree(path, ignore_errors=True)


def _old(attempts: Path) -> Iterator[Path]:
    for path in attempts.glob("*-*"):
        with suppress(OSError):
            if time() - path.stat().st_mtime > KEPT_FOR.total_seconds():
                yield path
