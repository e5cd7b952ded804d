"""The trials that were made, on disk as soon as they are: a line of JSON each.

A line that was cut off by a crash is a trial that was not made.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from pipeline.laboratory.trials import Row
from protocol.errors import ConfigError

_DECODER = msgspec.json.Decoder(Row)


class Journal:
    """The file `path`, which begins with what the experiment is; `rows` is what is in it.

    ConfigError for one of another experiment, where it is not to be resumed, or cannot be written.
    """

    def __init__(self, path: Path, experiment: str, *, resume: bool) -> None:
        self._path = path
        self.rows: list[Row] = []
        try:
            self._open(experiment, resume=resume)
        except OSError as error:
            raise ConfigError(f"--out: {path}: {error.strerror}") from None

    def _open(self, experiment: str, *, resume: bool) -> None:
        there = self._path.read_bytes() if self._path.exists() else b""
        whole, _, _ = there.rpartition(b"\n")
        first, *lines = whole.split(b"\n")
        if first and not resume:
            raise ConfigError(f"--out: {self._path} is there: --resume goes on with it")
        if first and first.decode(errors="replace") != experiment:
            raise ConfigError(f"--out: {self._path} is of another experiment")
        self.rows = list(_decoded(lines, self._path))
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        os.ftruncate(self._fd, len(whole) + 1 if first else 0)
        os.lseek(self._fd, 0, os.SEEK_END)
        if not first:
            os.write(self._fd, experiment.encode() + b"\n")

    def beside(self, name: str) -> Path:
        """A file of that name in the same folder."""
        return self._path.parent / name

    def add(self, row: Row) -> None:
        """Keep it, flushed; ConfigError where the disk has no room for it, and it is not kept."""
        line, end = msgspec.json.encode(row) + b"\n", os.lseek(self._fd, 0, os.SEEK_END)
        try:
            if os.write(self._fd, line) != len(line):
                raise OSError(28, "No space left on device")
            os.fdatasync(self._fd)
        except OSError as error:
            os.ftruncate(self._fd, end)
            raise ConfigError(
                f"{self._path} cannot be written: {error.strerror};"
                f" {len(self.rows)} trials are kept"
            ) from None
        self.rows.append(row)

    def close(self) -> None:
        """Let go of it. Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _decoded(lines: list[bytes], path: Path) -> Iterator[Row]:
    for number, line in enumerate(lines, 2):
        try:
            yield _DECODER.decode(line)
        except msgspec.DecodeError as error:
            raise ConfigError(f"--out: {path}:{number}: {error}") from None
