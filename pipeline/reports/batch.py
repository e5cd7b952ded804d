"""The page about a batch: who is where now, how it went for each guest, host by host, over time."""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from pipeline.reports import charts
from pipeline.reports.advice import STAGES
from pipeline.reports.page import Page

MIB = 1 << 20
COLOURS = {"arrived": "#10b981", "failed": "#ef4444", "lost": "#7f1d1d", "unknown": "#8b5cf6",
           "cancelled": "#9ca3af", "waiting": "#f59e0b", "running": "#3b82f6"}  # fmt: skip
LISTED = 60
"""Guests in the timeline; more could not be told apart."""
COLUMNS = (
    "guest", "state", "from", "to", "runs at", "tries", "s", "MiB", "MiB on the wire", "ratio",
    "rounds", "downtime (ms)", "why",
)  # fmt: skip


def batch_report(found: Mapping[str, Any]) -> str:
    """All of a batch's summary, as HTML."""
    page = Page(f"pageferry batch: {found['name']}")
    told = [f"{count} {state}" for state, count in found["counts"].items() if count]
    began, ended = found["began"], found["ended"] or found["began"]
    page.words(
        f"{', '.join(told)}, in {ended - began:.1f} s, from {_date(began)} to {_date(ended)}."
    )
    moves = found["moves"]
    _trouble(page, moves)
    _timeline(page, found["began"], moves)
    _hosts(page, found["hosts"])
    _limits(page, moves)
    page.heading("Guests")
    page.table(COLUMNS, [_row(one) for one in moves])
    return page.html


def _trouble(page: Page, moves: Sequence[Mapping[str, Any]]) -> None:
    """Who has not arrived, first."""
    others = [one for one in moves if one["state"] != "arrived"]
    if others:
        page.heading("Not arrived")
        page.table(
            ("guest", "state", "runs at", "why"),
            [(one["name"], one["state"], one["place"] or "not known", one["reason"])
             for one in others],
        )  # fmt: skip


def _timeline(page: Page, began: float, moves: Sequence[Mapping[str, Any]]) -> None:
    ran = [one for one in moves if one["began"] is not None and one["ended"] is not None]
    if not ran:
        return
    first = sorted(ran, key=lambda one: one["began"])[:LISTED]
    page.heading("Over time")
    page.chart(
        charts.stacked(
            {"_before": [one["began"] - began for one in first], **_by_outcome(first)},
            [one["name"] for one in first],
            f"s from {_date(began)}",
            COLOURS,
        ),
        "The last attempt of each guest, in the order in which these began, by what came of it.",
    )


def _by_outcome(moves: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """For each state that there is: how long the last attempt of those in it took; 0 of others."""
    return {
        state: [(one["ended"] - one["began"]) * (one["state"] == state) for one in moves]
        for state in dict.fromkeys(one["state"] for one in moves)
    }


def _date(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _hosts(page: Page, hosts: Sequence[Mapping[str, Any]]) -> None:
    page.heading("Hosts")
    names = [one["name"] for one in hosts]
    page.chart(
        charts.stacked(
            {
                "out": [one["bytes-out"] / MIB for one in hosts],
                "in": [one["bytes-in"] / MIB for one in hosts],
            },
            names,
            "MiB of guest memory",
        ),
        "What left each host, and what came.",
    )
    page.table(
        ("host", "guests that left", "that came", "that are to leave yet"),
        [(one["name"], one["left"], one["came"], one["to-leave"]) for one in hosts],
    )


def _limits(page: Page, moves: Sequence[Mapping[str, Any]]) -> None:
    counted = Counter(one["bottleneck"] for one in moves if one["bottleneck"])
    if counted:
        page.heading("What limited")
        page.table(
            ("busiest stage", "guests", "what it may mean"),
            [(name, count, STAGES.get(name, "")) for name, count in counted.most_common()],
        )


def _row(one: Mapping[str, Any]) -> list[object]:
    took = one["ended"] - one["began"] if one["began"] and one["ended"] else None
    wire = one["wire-bytes"]
    told = [
        one["name"], one["state"], one["source"], one["destination"], one["place"], one["tries"],
        None if took is None else round(took, 1), one["memory"] / MIB,
        None if wire is None else round(wire / MIB, 1),
        None if one["ratio"] is None else round(one["ratio"], 2),
        one["rounds"], one["downtime"], one["reason"],
    ]  # fmt: skip
    return ["" if cell is None else cell for cell in told]
