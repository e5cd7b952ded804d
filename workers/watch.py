"""Which workers are asked whether they still hear, and which owe the answer. Pure: time is an
argument.

A worker answers between two steps of its work and while it waits for the network, so that
only one that is stopped, or stuck in a system call, is silent.
"""

ASK_NS = 1_000_000_000
SILENCE_NS = 3_000_000_000
"""A step takes milliseconds; ten busy workers a core hold up an answer by some 100 ms."""


class Watch:
    """When each worker was last asked, and since when it owes an answer, in monotonic ns."""

    def __init__(self) -> None:
        self._asked_ns: dict[int, int] = {}
        self._owes_since_ns: dict[int, int] = {}

    def add(self, worker: int, now_ns: int) -> None:
        """A worker is up."""
        self._asked_ns[worker] = now_ns

    def remove(self, worker: int) -> None:
        """A worker is gone."""
        self._asked_ns.pop(worker, None)
        self._owes_since_ns.pop(worker, None)

    def heard(self, worker: int) -> None:
        """A worker has said something."""
        self._owes_since_ns.pop(worker, None)

    def to_ask(self, now_ns: int) -> list[int]:
        """The workers that are to be asked now."""
        due = [worker for worker, asked in self._asked_ns.items() if now_ns - asked >= ASK_NS]
        for worker in due:
            self._asked_ns[worker] = now_ns
            self._owes_since_ns.setdefault(worker, now_ns)
        return due

    def silent(self, now_ns: int) -> list[int]:
        """The workers that have owed an answer for too long."""
        owed = self._owes_since_ns.items()
        return [worker for worker, since in owed if now_ns - since > SILENCE_NS]
