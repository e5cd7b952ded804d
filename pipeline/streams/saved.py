"""The file of a saved guest: what the source said and its frames, in order, and a seal at the end.

It has no name before it is complete, so that whatever is killed meanwhile leaves nothing.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import xxhash

from protocol.errors import ConfigError, MigrationError, RemoteProtocolError
from protocol.stream import (
    DIGEST,
    Content,
    Kind,
    Record,
    RecordReader,
    encode_preamble,
    encode_record,
)

FLUSH_BYTES = 16 << 20
"""Written between two flushes, so that none of them takes long."""


class SavedWriter:
    """A file that is being written; owned by one party. MigrationError where it cannot be."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seal = _Seal()
        self._unflushed = 0
        try:
            flags = os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC
            self.fd = os.open(path.parent, flags, 0o600)
        except OSError as error:
            raise self._failure(error) from None
        self._put([encode_preamble(Content.SAVED)])

    def write(self, record: Record) -> None:
        """Put a record behind the others."""
        self._seal.cover(record)
        self._put([encode_record(record), *record.parts])

    def _put(self, pieces: list[bytes | memoryview]) -> None:
        whole = memoryview(b"".join(pieces))
        try:
            while len(whole):
                written = os.write(self.fd, whole)
                whole, self._unflushed = whole[written:], self._unflushed + written
        except OSError as error:
            raise self._failure(error) from None
        if self._unflushed >= FLUSH_BYTES:
            self.flush()

    def flush(self) -> None:
        """All of it is on the disk, and has to be read from there again."""
        try:
            os.fdatasync(self.fd)
            os.posix_fadvise(self.fd, 0, 0, os.POSIX_FADV_DONTNEED)
        except OSError as error:
            raise self._failure(error) from None
        self._unflushed = 0

    def finish(self) -> None:
        """Put the seal behind the last record."""
        seal = memoryview(DIGEST.pack(self._seal.digest))
        self._put([encode_record(Record(Kind.END, 0, [seal])), seal])
        self.flush()

    def publish(self) -> None:
        """Give it its name, for good; MigrationError where there is one of that name."""
        try:
            folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.link(f"/proc/self/fd/{self.fd}", self._path.name, dst_dir_fd=folder)
                with _unlinked_where_it_fails(self._path.name, folder):
                    os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise self._failure(error) from None

    def _failure(self, error: OSError) -> MigrationError:
        why = error.strerror
        if error.errno in (errno.EOPNOTSUPP, errno.EISDIR):
            why = "its file system has no files without a name"
        return MigrationError(f"{self._path} cannot be saved: {why}")


@contextmanager
def _unlinked_where_it_fails(name: str, folder: int) -> Iterator[None]:
    """A guest that is told as not saved is not to be found later."""
    try:
        yield
    except OSError:
        os.unlink(name, dir_fd=folder)
        raise


class SavedReader:
    """The records of such a file, from its begin; RemoteProtocolError for what is wrong with it."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._at = 0
        self._reader = RecordReader(Content.SAVED)
        self._seal = _Seal()
        self.is_whole = False
        """Whether the seal was there, and right."""

    def maybe_next(self) -> Record | None:
        """The next record; None at the end of what there is."""
        if self.is_whole:
            self._check_end()
            return None
        while True:
            count = os.preadv(self._fd, [self._reader.room], self._at)
            if count == 0:
                self._check_between()
                return None
            self._at += count
            record = self._reader.took(count)
            if record is not None:
                return self._checked(record)

    def _check_between(self) -> None:
        if not self._reader.is_between:
            raise RemoteProtocolError("it ends in the middle of a record")

    def _checked(self, record: Record) -> Record:
        if record.kind is Kind.END:
            if bytes(record.parts[0]) != DIGEST.pack(self._seal.digest):
                raise RemoteProtocolError("it is damaged: wrong digest")
            self.is_whole = True
        self._seal.cover(record)
        return record

    def _check_end(self) -> None:
        if os.fstat(self._fd).st_size > self._at:
            raise RemoteProtocolError("something follows its end")


class _Seal:
    """The digest over all records so far."""

    def __init__(self) -> None:
        self._digest = xxhash.xxh3_64()

    def cover(self, record: Record) -> None:
        self._digest.update(encode_record(record))
        for part in record.parts:
            self._digest.update(part)

    @property
    def digest(self) -> int:
        return self._digest.intdigest()


def check_place(path: Path) -> None:
    """ConfigError where no guest can be saved at `path`; one that is there is never replaced."""
    if os.path.lexists(path):
        raise ConfigError(f"uri: {path} exists, expected a path for a new file")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise ConfigError(f"uri: {path}: its folder is not there, or cannot be written")


def open_saved(path: Path) -> int:
    """The descriptor of a saved guest; ConfigError where there is no file to read."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise ConfigError(f"uri: {path} cannot be read: {error.strerror}") from None
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    raise ConfigError(f"uri: {path} is not a regular file")
