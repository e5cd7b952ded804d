"""What a person sees of a batch: a dry run, where it stands, what comes next."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from time import time
from typing import TYPE_CHECKING, Any

import msgspec
from rich.console import Console
from rich.table import Table

from pipeline.batch.forecast import STARTS, Forecast, forecast, why_stuck
from pipeline.batch.loading import places
from pipeline.batch.moves import Move
from pipeline.batch.plan import Plan
from pipeline.batch.summary import MoveSummary, Summary
from pipeline.batch.window import is_open
from pipeline.config.units import format_bytes
from pipeline.shell.lines import one_line

if TYPE_CHECKING:
    from pipeline.cluster.conductor import Conductor
    from pipeline.cluster.running import Observer

PLAIN: Any = {"markup": False, "emoji": False, "highlight": False}
"""Words of others are words: [/x] in them is no markup."""
LINE_EVERY_S = 5.0
LISTED = 40
"""Guests in a table; of more, those that run or are in trouble come first."""
WEIGHT = {"unknown": 0, "lost": 1, "failed": 2, "stuck": 3, "running": 4, "cancelled": 5}


def dry_run(plan: Plan, moves: list[Move], path: Path) -> tuple[str, str, bool]:
    """The forecast of the plan in the file `path` as text and as JSON, and whether all guests can
    move."""
    if plan.is_embedded:
        cores, overhead_s = len(os.sched_getaffinity(0)), measured_overhead_s()
        found = forecast(plan, moves, cores=cores, overhead_s=overhead_s)
    else:
        found = forecast(plan, moves)
    where = places(path) if found.stuck else str
    stuck = {one.name: f"{where(one.where)}: {why_stuck(one)}" for one in found.stuck}
    return _plan_text(plan, found, stuck), _plan_json(plan, found, stuck), not found.stuck


def measured_overhead_s() -> float:
    """What an attempt takes besides sending, by the processor time that a command of ours takes to
    start here."""
    before = os.times()
    subprocess.run([sys.executable, "-m", "pipeline", "--version"], check=True, capture_output=True)
    after = os.times()
    took_s = after.children_user - before.children_user
    return STARTS * (took_s + after.children_system - before.children_system)


def _plan_text(plan: Plan, found: Forecast, stuck: dict[str, str]) -> str:
    shown = Table("guest", "from", "to", "begins", "takes", "memory")
    for one in sorted(found.foreseen, key=lambda one: one.began_s)[:LISTED]:
        took = f"{one.ended_s - one.began_s:.1f} s"
        shown.add_row(one.move.name, one.move.source, one.destination,
                      f"{one.began_s:.1f} s", took, format_bytes(one.move.memory))  # fmt: skip
    lines = [_drawn(shown)]
    if len(found.foreseen) > LISTED:
        lines.append(f"and {len(found.foreseen) - LISTED} more\n")
    lines += [f"{plan.name}: {len(found.foreseen)} guests, {found.seconds:.1f} s in all\n"]
    if plan.window is not None:
        lines.append(f"from {plan.window.opens} UTC on, when the window opens\n")
    for host in plan.drain:
        ends = [one.ended_s for one in found.foreseen if one.move.source == host]
        lines.append(f"{host} is empty after {max(ends, default=0):.1f} s\n")
    lines += [f"cannot move: {why}\n" for why in stuck.values()]
    return "".join(lines)


def _plan_json(plan: Plan, found: Forecast, stuck: dict[str, str]) -> str:
    moves = [
        {
            "name": one.move.name,
            "source": one.move.source,
            "destination": one.destination,
            "begins": one.began_s,
            "ends": one.ended_s,
        }
        for one in found.foreseen
    ]
    left = [{"name": name, "reason": why} for name, why in stuck.items()]
    told = {"name": plan.name, "seconds": found.seconds, "moves": moves, "cannot-move": left}
    return msgspec.json.format(msgspec.json.encode(told)).decode() + "\n"


def _drawn(table: Table) -> str:
    drawn = StringIO()
    Console(file=drawn, width=110, **PLAIN).print(table)
    return drawn.getvalue()


def table(found: Summary) -> str:
    """Where all stand, for a terminal."""
    return f"{_drawn(_rows(found))}{found.name}: {found.words}\n"


def _rows(found: Summary) -> Table:
    shown = Table("guest", "state", "from", "to", "%", "tries", "downtime", "ratio", "why")
    ordered = sorted(found.moves, key=lambda one: WEIGHT.get(one.state, 9))
    for one in ordered[:LISTED]:
        shown.add_row(*_cells(one))
    return shown


def _cells(one: MoveSummary) -> list[str]:
    return [
        one.name,
        one.state,
        one.source,
        one.destination or "",
        f"{one.percent:.0f}",
        str(one.tries),
        "" if one.downtime is None else f"{one.downtime} ms",
        "" if one.ratio is None else f"{one.ratio:.2f}",
        one_line(one.reason),
    ]


@contextmanager
def display(*, quiet: bool) -> Iterator["Observer"]:
    """What to hand to a batch, for as long as it runs."""
    if quiet:
        yield lambda *_: None
    elif sys.stderr.isatty():
        from rich.console import Group
        from rich.live import Live
        from rich.text import Text

        console = Console(stderr=True, **PLAIN)
        with Live(console=console, auto_refresh=False, transient=True) as live:
            yield lambda conductor, found: live.update(
                Group(_rows(found), Text(_line(conductor, found))), refresh=True
            )
    else:
        yield _Lines()


class _Lines:
    """A line every few seconds, and at each change."""

    def __init__(self) -> None:
        self._told_s = 0.0
        self._counts: dict[str, int] = {}

    def __call__(self, conductor: "Conductor", found: Summary) -> None:
        if found.counts == self._counts and time() - self._told_s < LINE_EVERY_S:
            return
        self._told_s, self._counts = time(), found.counts
        sys.stderr.write(f"{_line(conductor, found)}\n")
        sys.stderr.flush()


def _line(conductor: "Conductor", found: Summary) -> str:
    seconds = (found.ended or time()) - found.began
    waits = ", paused" if conductor.paused else ""
    window = conductor.plan.window
    if window is not None and not is_open(window, time()):
        waits += f", the window opens at {window.opens} UTC"
    return f"{seconds:.0f} s: {found.words}{waits or _left(conductor, found)}"


def _left(conductor: "Conductor", found: Summary) -> str:
    """How long it takes yet, and when hosts that are drained are empty."""
    if not (found.counts["running"] or found.counts["waiting"]):
        return ""
    ahead = conductor.ahead()
    hosts = [
        f", {host} empty in {max(ends):.0f} s"
        for host in conductor.plan.drain
        if (ends := [one.ended_s for one in ahead.foreseen if one.move.source == host])
    ]
    return f", {ahead.seconds:.0f} s left{''.join(hosts)}"
