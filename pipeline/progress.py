"""What the engine tells of a running migration, a few times a second."""

from collections.abc import Callable
from dataclasses import dataclass

from protocol.status import Status


@dataclass(frozen=True)
class Progress:
    """A moment. Rates are a second; None where it is not known yet.

    `percent` is 0 to 100, `transferred` bytes on the wire, `remaining` bytes of guest
    memory, `ratio` guest bytes by wire bytes.
    """

    status: Status
    elapsed_s: float = 0.0
    round_no: int = 0
    percent: float = 0.0
    transferred: int = 0
    remaining: int = 0
    guest_rate: float | None = None
    wire_rate: float | None = None
    dirty_pages_rate: float | None = None
    ratio: float | None = None
    expected_downtime_ms: float | None = None


Observer = Callable[[Progress], None]
"""Called by the engine, in its own thread; must be quick and must not raise."""
