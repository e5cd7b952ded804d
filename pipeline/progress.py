"""What the engine tells of a running migration, a few times a second."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from protocol.status import Status


@dataclass(frozen=True)
class Counts:
    """What an end has counted by now; empty, or None, where only the other end knows.

    `pages` by kind, `busy_s` seconds of work by stage, over all workers; `workers` by stage.
    """

    memory_bytes: int | None = None
    pages: Mapping[str, int] = field(default_factory=dict)
    redone: int | None = None
    workers: Mapping[str, int] = field(default_factory=dict)
    busy_s: Mapping[str, float] = field(default_factory=dict)
    downtime_ms: float | None = None


@dataclass(frozen=True)
class Progress:
    """A moment. Rates are a second; None where it is not known yet.

    `percent` is 0 to 100, `transferred` bytes on the wire, `remaining` bytes of guest memory
    and disks, `disk_remaining` those of disks,
    `ratio` bytes of the pages that were sent with their content by all wire bytes, `throttle` the
    percent that the guest is slowed down by; `received`, at the destination, which does not know
    what is still to come, bytes of guest memory.
    """

    status: Status
    elapsed_s: float = 0.0
    round_no: int = 0
    percent: float | None = None
    transferred: int | None = None
    remaining: int | None = None
    disk_remaining: int | None = None
    received: int | None = None
    guest_rate: float | None = None
    wire_rate: float | None = None
    dirty_pages_rate: float | None = None
    ratio: float | None = None
    expected_downtime_ms: float | None = None
    throttle: int | None = None
    counts: Counts = Counts()


Observer = Callable[[Progress], None]
"""Called by the engine, in its own thread; must be quick and must not raise."""

PROGRESS_NS = 250_000_000


def every_so_often(tell: Callable[[], None]) -> Callable[[int], None]:
    """A tick that calls `tell` four times a second at most."""
    told_ns = 0

    def tick(now_ns: int) -> None:
        nonlocal told_ns
        if now_ns - told_ns >= PROGRESS_NS:
            told_ns = now_ns
            tell()

    return tick


def and_every_so_often(
    tick: Callable[[int], None], look: Callable[[], None]
) -> Callable[[int], None]:
    """`tick`, and then `look`, as `every_so_often`."""
    look_now_and_then = every_so_often(look)

    def both(now_ns: int) -> None:
        tick(now_ns)
        look_now_and_then(now_ns)

    return both
