"""The page about a batch: who is where now, how it went for each guest, host by host, over time."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.reports import charts
from pipeline.reports.advice import STAGES
from pipeline.reports.page import Page

MIB = 1 << 20
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
    seconds = (found["ended"] or found["began"]) - found["began"]
    page.words(f"{', '.join(told)}, in {seconds:.1f} s.")
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
            {
                "_before": [one["began"] - began for one in first],
                "last attempt": [one["ended"] - one["began"] for one in first],
            },
            [one["name"] for one in first],
            "s from the start of the batch",
        ),
        "The last attempt of each guest, in the order in which these began.",
    )


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
