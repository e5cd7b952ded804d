"""Puts frames that arrive in any order back into the order of their seq.

Holds at most `window` of them; what was applied already, or is held already, is a
duplicate and is handed back to be dropped.
"""

from typing import Generic, TypeVar

from protocol.errors import RemoteProtocolError

T = TypeVar("T")


class ReorderWindow(Generic[T]):
    """The frames between the first one missing and the last one allowed.

    Owned by one party; `applied` is the highest seq that came out, so that all of
    1..applied came out, each once.
    """

    def __init__(self, window: int) -> None:
        self._window = window
        self._held: dict[int, T] = {}
        self.applied = 0

    def __len__(self) -> int:
        return len(self._held)

    def add(self, seq: int, item: T) -> bool:
        """Take `item`; False when it is a duplicate, which stays the caller's.

        RemoteProtocolError for a seq that the sender could not have given out.
        """
        if not 0 < seq <= self.applied + self._window:
            raise RemoteProtocolError(
                f"seq {seq} outside the window: {self.applied} applied, window {self._window}"
            )
        if seq <= self.applied or seq in self._held:
            return False
        self._held[seq] = item
        return True

    def head(self) -> T | None:
        """The frame that is next in order, or None while it is missing."""
        return self._held.get(self.applied + 1)

    def advance(self) -> T:
        """Take the head out, now that it is applied."""
        item = self._held.pop(self.applied + 1)
        self.applied += 1
        return item
