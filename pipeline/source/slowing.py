"""A guest is slowed down by the first of its means that works here, and never stays so."""

from collections.abc import Callable

import structlog

from pipeline.guests.base import SourceGuest, Throttle
from pipeline.records.record import AnyEffect
from protocol.errors import GuestError


class Slowing:
    """Of one guest. `percent` of its processor time are taken now, at `most` so many were, `by`
    what. `on_record` keeps an effect on disk before it is had."""

    def __init__(self, guest: SourceGuest, on_record: Callable[[AnyEffect], None]) -> None:
        self._guest = guest
        self._throttles: list[Throttle] | None = None
        self._on_record = on_record
        self.percent = self.most = 0
        self.by: str | None = None

    def take(self, percent: int) -> None:
        """Take so much; what does not work is told, and harms no migration."""
        if self._throttles is None:
            self._throttles = list(self._guest.throttles())
        while self._throttles:
            try:
                self._take(self._throttles[0], percent)
                return
            except GuestError as error:
                how, *others = self._throttles
                then = f"by {others[0].how} then" if others else "the guest keeps its pace"
                structlog.get_logger().warning(f"not slowed down by {how.how}: {error}; {then}")
                self._give_up(self._throttles.pop(0))

    def _take(self, throttle: Throttle, percent: int) -> None:
        if self.by != throttle.how:
            for effect in throttle.effects():
                self._on_record(effect)
        throttle.take(percent)
        self.percent = self.most = percent
        self.by = throttle.how

    def _give_up(self, throttle: Throttle) -> None:
        self.percent = 0
        try:
            throttle.release()
        except GuestError as error:
            structlog.get_logger().warning(f"{error}; `pageferry cleanup` undoes it")

    def release(self) -> None:
        """Give back all of it; GuestError where that cannot be done now. Idempotent."""
        if self.percent and self._throttles:
            self._throttles[0].release()
            self.percent = 0
