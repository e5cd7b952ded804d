"""When to tell the source how far memory is. Pure: time is an argument."""

EVERY_FRAMES = 8
"""Half of the window of large frames: the source never waits for room, and hears an eighth of what
it would if each frame were acknowledged (a control message costs both ends some 40 us)."""

IDLE_MS = 1
"""How long an idle receiver waits for more frames; what that adds to a fence."""

LATE_NS = 5_000_000
"""After this long even a receiver that is busy reading back acknowledges what there is."""


class Acknowledgement:
    """What the source was told last, and when, in monotonic ns."""

    def __init__(self) -> None:
        self._told = 0
        self._told_ns = 0

    def is_pending(self, applied: int) -> bool:
        """Whether frames up to seq `applied` are in memory and the source does not know it."""
        return applied > self._told

    def is_due(self, applied: int, now_ns: int, *, idle: bool) -> bool:
        """Whether to tell it now; `idle`: nothing came in the last wait."""
        late = now_ns - self._told_ns > LATE_NS
        return applied - self._told >= (1 if idle or late else EVERY_FRAMES)

    def told(self, applied: int, now_ns: int) -> None:
        """The source was told."""
        self._told, self._told_ns = applied, now_ns
