"""Whether a guest that is said to have no writer has none, as far as can be seen from here.

A process that has the memory open or mapped to write is seen in /proc, and what somebody wrote and
closed again in the file's times; where there are processes that we may not look at, nobody is sure.
"""

import os
from collections.abc import Iterator

from pipeline.file_users import sees_everybody, users_of
from pipeline.guests.base import SourceGuest

Stamps = tuple[tuple[int, int], ...]


def stamps(guest: SourceGuest) -> Stamps:
    """When each block was last written by a call, in ns, and its size in bytes."""
    found = (os.fstat(block.fd) for block in guest.blocks)
    return tuple((status.st_mtime_ns, status.st_size) for status in found)


def is_quiet(guest: SourceGuest) -> bool:
    """Whether it is said to have no writer, and has none now."""
    return not guest.can_stop and sees_everybody() and next(other_writers(guest), None) is None


def has_stayed_quiet(guest: SourceGuest, since: Stamps) -> bool:
    """Whether it is, and was not written by a call meanwhile."""
    return stamps(guest) == since and is_quiet(guest)


def other_writers(guest: SourceGuest) -> Iterator[str]:
    """Which processes besides its own can write to its memory, in words."""
    besides = {os.getpid(), *([] if guest.process is None else [guest.process.pid])}
    for block in guest.blocks:
        for user in users_of(block.fd, besides):
            if user.can_write:
                yield f"process {user.pid} can write to block {block.name}, too"
