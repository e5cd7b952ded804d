"""When a migration reached each status, in monotonic ns."""

from time import monotonic_ns

from protocol.status import FINISHED, Status, StatusMachine


class Timeline:
    """Notes the time of every change of a status machine."""

    def __init__(self, status: StatusMachine) -> None:
        self._reached_ns: dict[Status, int] = {}
        status.notify(self._note)

    def _note(self, status: Status) -> None:
        if status is Status.SETUP:  # another migration
            self._reached_ns.clear()
        self._reached_ns[status] = monotonic_ns()

    def elapsed_ms(self) -> float:
        """Since the command was taken, up to the end where there was one."""
        now_ns = monotonic_ns()
        ends = [self._reached_ns[status] for status in FINISHED & self._reached_ns.keys()]
        return (min(ends, default=now_ns) - self._reached_ns.get(Status.SETUP, now_ns)) / 1e6

    def setup_ms(self) -> float | None:
        """How long setup took; None while it lasts, or where it failed."""
        if Status.ACTIVE not in self._reached_ns:
            return None
        return (self._reached_ns[Status.ACTIVE] - self._reached_ns[Status.SETUP]) / 1e6
