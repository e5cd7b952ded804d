"""What a person sees: progress on standard error, a short table at the end.

Only shows; decides nothing about the migration. The percentage shown never falls.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import structlog

from pipeline.config.units import format_bytes
from pipeline.progress import Observer, Progress
from pipeline.result import Result, ratio
from protocol.limits import PAGE_BYTES
from protocol.status import Status

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table

_LINE_EVERY_S = 1.0
_BAR_COLUMNS = 10
_PLAIN_ONLY = {"left", "of disks", "wire"}
"""The whole live line then fits into 80 columns."""


class _Rising:
    """The highest percentage so far: pages that are dirtied again lower the true one."""

    def __init__(self) -> None:
        self._highest = 0.0

    def clamp(self, progress: Progress) -> float | None:
        if progress.status is Status.SETUP:
            self._highest = 0.0
        if progress.percent is None:
            return None
        self._highest = max(self._highest, min(progress.percent, 100.0))
        return self._highest


class PlainDisplay:
    """A line a second at most, and one at every change of status or round."""

    def __init__(self) -> None:
        self._rising = _Rising()
        self._place: tuple[Status, int] | None = None
        self._told_s = 0.0

    def __call__(self, progress: Progress) -> None:
        """Show `progress` if it is due."""
        percent = self._rising.clamp(progress)
        place = (progress.status, progress.round_no)
        waits = percent is None and not _facts(progress)  # a destination may do so for hours
        if place == self._place and (waits or progress.elapsed_s - self._told_s < _LINE_EVERY_S):
            return
        self._place, self._told_s = place, progress.elapsed_s
        self._write(progress, percent)

    def _write(self, progress: Progress, percent: float | None) -> None:
        facts = "".join(f", {name} {text}" for name, text in _facts(progress))
        far = "" if percent is None else f", {percent:.0f} %"
        sys.stderr.write(f"{progress.elapsed_s:.1f} s: {progress.status}{far}{facts}\n")
        sys.stderr.flush()


class JsonDisplay(PlainDisplay):
    """The same lines, for programs: what is known, in the units that it is counted in."""

    def _write(self, progress: Progress, percent: float | None) -> None:
        fields = {**vars(progress), "percent": percent}
        del fields["counts"]
        known = {name: value for name, value in fields.items() if value is not None}
        structlog.get_logger().info("progress", **known)


class LiveDisplay:
    """One line with a bar, redrawn in place on the terminal."""

    def __init__(self, live: "Live") -> None:
        self._live = live
        self._rising = _Rising()

    def __call__(self, progress: Progress) -> None:
        """Show `progress` now."""
        percent = self._rising.clamp(progress)
        self._live.update(_live_table(progress, percent), refresh=True)


def _live_table(progress: Progress, percent: float | None) -> "Table":
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    facts = [fact for fact in _facts(progress) if fact[0] not in _PLAIN_ONLY]
    table = Table(box=None, pad_edge=False, header_style="dim")
    far = "" if percent is None else f"{percent:.0f} %"
    for column in ["status", far, *(name for name, _ in facts)]:
        table.add_column(column, no_wrap=True)
    bar = ProgressBar(total=100, completed=percent or 0, width=_BAR_COLUMNS)
    status, texts = str(progress.status), [text for _, text in facts]
    table.add_row(status, "" if percent is None else bar, *texts)
    return table


def _facts(progress: Progress) -> list[tuple[str, str]]:
    """What is known, as (name, text)."""
    dirty = progress.dirty_pages_rate
    known = [
        ("round", str(progress.round_no) if progress.round_no else None),
        ("received", _size(progress.received)),
        ("left", _size(progress.remaining)),
        ("of disks", _size(progress.disk_remaining)),
        ("wire", _rate(progress.wire_rate)),
        ("memory", _rate(progress.guest_rate)),
        ("dirty", None if dirty is None else _rate(dirty * PAGE_BYTES)),
        ("ratio", None if progress.ratio is None else f"{progress.ratio:.2f}"),
        ("downtime", _ms(progress.expected_downtime_ms)),
        ("throttle", None if progress.throttle is None else f"{progress.throttle} %"),
    ]
    return [(name, text) for name, text in known if text is not None]


def _size(count: int | None) -> str | None:
    return None if count is None else format_bytes(count)


def _rate(rate: float | None) -> str | None:
    return None if rate is None else f"{format_bytes(rate)}/s"


def _ms(ms: float | None) -> str | None:
    return None if ms is None else f"{ms:.0f} ms"


@contextmanager
def observing(*, quiet: bool, as_json: bool = False) -> Iterator[Observer]:
    """What to hand to the engine, for as long as the migration runs."""
    if quiet or sys.stderr is None:
        yield lambda _: None
    elif as_json:
        yield _harmless(JsonDisplay())
    elif sys.stderr.isatty():
        from rich.console import Console
        from rich.live import Live

        with Live(console=Console(stderr=True), auto_refresh=False, transient=True) as live:
            yield _harmless(LiveDisplay(live))
    else:
        yield _harmless(PlainDisplay())


def _harmless(display: Observer) -> Observer:
    """A migration goes on, whether somebody can be shown how or not."""

    def show(progress: Progress) -> None:
        with suppress(OSError):
            display(progress)

    return show


def summary(result: Result, *, lives_on: bool = False, stays_still: bool = True) -> str:
    """The table at the end: a line for each fact that is known.

    `lives_on`: the guest is no part of the command, and does not end with it; `stays_still`:
    nobody could let one that was saved go on.
    """
    alive = _alive(result, lives_on, stays_still)
    rows = [(name, text) for name, text in _summary_rows(result, alive) if text is not None]
    return "".join(f"{name:<14}{text}\n" for name, text in rows)


def _summary_rows(result: Result, alive: str | None) -> list[tuple[str, str | None]]:
    return [
        ("status", str(result.status)),
        ("total time", _ms(result.total_time)),
        ("downtime", _downtime(result)),
        ("on the wire", _wire(result)),
        ("disks", _disks(result)),
        ("rounds", str(len(result.rounds)) if result.rounds else None),
        ("bottleneck", _bottleneck(result)),
        ("verified", _verified(result)),
        ("self-check", result.self_check),
        ("tracker", _tracker(result)),
        ("guest alive", alive),
    ]


def _bottleneck(result: Result) -> str | None:
    """The stage, and of how much of the time it was at work."""
    shares = getattr(result.stages, result.bottleneck or "", None)
    return result.bottleneck if shares is None else f"{result.bottleneck}, busy {shares.busy:.0%}"


def _downtime(result: Result) -> str | None:
    text = _ms(result.downtime)
    parts = result.downtime_parts
    if text is None or parts is None:
        return text
    known = [(n.replace("_", " "), getattr(parts, n)) for n in parts.__struct_fields__]
    inner = ", ".join(f"{name} {ms:.0f}" for name, ms in known if ms is not None)
    return f"{text} ({inner})" if inner else text


def _wire(result: Result) -> str | None:
    if result.ram is None or result.ram.transferred is None:
        return None
    text = format_bytes(result.ram.transferred)
    saved = ratio(result)
    if saved is None:
        return text
    return f"{text} for {format_bytes(result.ram.normal_bytes or 0)} of pages, ratio {saved:.2f}"


def _disks(result: Result) -> str | None:
    if result.disk is None:
        return None
    return f"{format_bytes(result.disk.total)}, {format_bytes(result.disk.transferred)} on the wire"


def _alive(result: Result, lives_on: bool, stays_still: bool) -> str | None:
    """A guest that came to a command of ours, or was started by it and saved, ends with it."""
    until = "" if lives_on else ", until this command ended"
    if result.guest_alive == "destination" and result.self_check is not None:
        return f"destination{until}"
    if result.guest_alive == "source" and result.status is Status.COMPLETED:
        return f"source{', where it stands still' if stays_still else ''}{until}"
    return result.guest_alive


def _verified(result: Result) -> str:
    if isinstance(result.verified, str):
        return f"{result.verified} only"
    return {True: "all of memory", False: "no, it differs", None: "not asked for"}[result.verified]


def _tracker(result: Result) -> str | None:
    if result.tracker is None or not result.tracker_reason:
        return result.tracker
    return f"{result.tracker} ({result.tracker_reason})"
