"""The trials that were made, on disk as soon as they are: a line of JSON each.

A line that was cut off by a crash is a trial that was not made.
"""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from pipeline.laboratory.trials import Row, Trial
from protocol.errors import ConfigError

_DECODER = msgspec.json.Decoder(Row)


class Journal:
    """The file `path`, which begins with what the experiment is; `rows` is what is in it.

    ConfigError for one of another experiment, where it is not to be resumed, or cannot be written.
    """

    def __init__(self, path: Path, experiment: str, *, resume: bool) -> None:
        self._path = path
        self._by_key: dict[str, Row] = {}
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
        self._by_key = {row.trial.key: row for row in _decoded(lines, self._path)}
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        os.ftruncate(self._fd, len(whole) + 1 if first else 0)
        os.lseek(self._fd, 0, os.SEEK_END)
        if not first:
            os.write(self._fd, experiment.encode() + b"\n")

    @property
    def rows(self) -> list[Row]:
        """In the order in which they were made."""
        return list(self._by_key.values())

    def maybe_row(self, trial: Trial) -> Row | None:
        """That of a trial, if it was made."""
        return self._by_key.get(trial.key)

    def beside(self, name: str) -> Path:
        """A file of that name in the same folder."""
        return self._path.parent / name

    def add(self, row: Row) -> None:
        """Keep it, flushed; ConfigError where the disk has no room for it, and it is not kept."""
        line, end = msgspec.json.encode(row) + b"\n", os.lseek(self._fd, 0, os.SEEK_END)
        try:
            if os.write(self._fd, line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fdatasync(self._fd)
        except OSError as error:
            os.ftruncate(self._fd, end)
            raise ConfigError(
                f"{self._path} cannot be written: {error.strerror};"
                f" {len(self._by_key)} trials are kept"
            ) from None
        self._by_key[row.trial.key] = row

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
