"""A guest is slowed down by the first of its means that works here, and never stays so."""

from collections.abc import Callable

import structlog

from pipeline.guests.base import SourceGuest, Throttle
from pipeline.records.record import AnyEffect
from protocol.errors import GuestError, MigrationError


class Slowing:
    """Of one guest. `percent` of its processor time are taken now, `most` were at any time, `by`
    what. `on_record` keeps an effect on disk before it is had, `off_record` drops one that is
    undone."""

    def __init__(
        self,
        guest: SourceGuest,
        on_record: Callable[[AnyEffect], None],
        off_record: Callable[[AnyEffect], None] = lambda _: None,
    ) -> None:
        self._guest = guest
        self._left: list[Throttle] | None = None
        """Those that were not found to fail, the one in use first."""
        self._used: dict[Throttle, tuple[AnyEffect, ...]] = {}
        """Those that something may have been done by, and what is on record of it."""
        self._on_record, self._off_record = on_record, off_record
        self.percent = self.most = 0
        self.by: str | None = None

    def take(self, percent: int) -> bool:
        """Take so much, also where that was so before; whether it could be: what does not work is
        told, and harms no migration."""
        try:
            if self._guest.run_state() != "running":
                return False
            if self._left is None:
                self._left = list(self._guest.throttles())
        except GuestError as error:
            return self._tell(f"the guest is not slowed down: {error}")
        while self._left:
            throttle = self._left[0]
            try:
                self._take(throttle, percent)
                return True
            except MigrationError as error:
                self._tell(f"the guest is not slowed down by {throttle.how}: {error}")
                self._left.pop(0)
        self.percent = 0
        return False

    def _tell(self, words: str) -> bool:
        structlog.get_logger().warning(words)
        return False

    def _take(self, throttle: Throttle, percent: int) -> None:
        if throttle not in self._used:
            effects = throttle.effects()
            for effect in effects:
                self._on_record(effect)
            self._used[throttle] = effects
        throttle.take(percent)
        if percent != self.percent:
            structlog.get_logger().info("throttle", percent=percent)
        self.percent, self.by = percent, throttle.how
        self.most = max(self.most, percent)

    def release(self) -> None:
        """Give back all of it; GuestError, after all that can be, where something cannot be now.
        Idempotent."""
        failed: list[GuestError] = []
        self.percent = 0
        for throttle in list(self._used):
            try:
                throttle.release()
                for effect in self._used.pop(throttle):
                    self._off_record(effect)
            except GuestError as error:
                failed.append(error)
        if failed:
            raise failed[0]
