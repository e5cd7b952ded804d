"""Reasons for which a guest must not migrate now."""


class Blockers:
    """Who has one keeps the guest here until it lets go; the newest one's reason is told."""

    def __init__(self) -> None:
        self._reasons: list[str] = []

    def add(self, reason: str) -> None:
        """Block, for `reason`."""
        self._reasons.append(reason)

    def remove(self, reason: str) -> None:
        """Let go of what was added for `reason`; ValueError where it was not."""
        self._reasons.remove(reason)

    @property
    def newest(self) -> str | None:
        """The reason of the one that was added last."""
        return self._reasons[-1] if self._reasons else None
