"""The page about one migration: rounds, what limited, where the downtime went, what was decided."""

from collections.abc import Mapping
from typing import Any

import msgspec

from pipeline.config.units import format_bytes
from pipeline.reports import charts
from pipeline.reports.advice import advice
from pipeline.reports.page import Page
from pipeline.result import Result, ratio, why_not_good
from protocol.limits import PAGE_BYTES

MIB = 1 << 20


def migration_report(result: Result) -> str:
    """All that `result` knows, as HTML; a part that was not reached is left out."""
    page = Page(f"pageferry: migration of {result.name or 'a guest'}")
    seen: dict[str, Any] = msgspec.to_builtins(result)
    page.words(_first_words(result))
    _facts(page, result)
    if result.rounds:
        _rounds(page, seen["rounds"])
    if result.stages is not None:
        _stages(page, seen)
    if result.downtime_parts is not None:
        _downtime(page, seen["downtime-parts"])
    _decisions(page, result)
    return page.html


def _first_words(result: Result) -> str:
    why = why_not_good(result)
    ended = f"It {result.status}." if why is None else f"It {result.status}: {why}."
    return f"{ended} The guest is at: {result.guest_alive or 'not known to this end'}."


def _facts(page: Page, result: Result) -> None:
    """What fits into a line each."""
    ram, saved = result.ram, ratio(result)
    facts = [
        ("session", result.session),
        ("total time (ms)", result.total_time),
        ("of which setup (ms)", result.setup_time),
        ("downtime (ms)", result.downtime),
        ("memory", None if ram is None else format_bytes(ram.total)),
        ("on the wire", None if ram is None else format_bytes(ram.transferred or 0)),
        ("ratio of pages to wire", None if saved is None else round(saved, 2)),
        ("disks", None if result.disk is None else format_bytes(result.disk.total)),
        ("frames redone", result.redone),
        ("tracker", result.tracker and f"{result.tracker} ({result.tracker_reason})"),
        ("verified", _verified(result)),
        ("self-check", result.self_check),
        ("most taken from the processors (%)", result.cpu_throttle_percentage),
    ]
    page.table(("", ""), [(name, fact) for name, fact in facts if fact is not None])


def _verified(result: Result) -> str:
    if isinstance(result.verified, str):
        return f"{result.verified} only"
    return {True: "all of memory", False: "it differs", None: "no"}[result.verified]


def _rounds(page: Page, rounds: list[dict[str, Any]]) -> None:
    """What each one sent, and how fast."""
    page.heading("Rounds")
    for title, caption, fields in (
        ("MiB", "Guest memory that each round sent, and the bytes it took.",
         {"memory": "bytes", "on the wire": "wire-bytes"}),
        ("MiB/s", "How fast each round was, and how fast the guest wrote since the one before.",
         {"memory": "memory-rate", "on the wire": "wire-rate"}),
    ):  # fmt: skip
        series = {
            name: [(one["round"], (one[key] or 0) / MIB) for one in rounds]
            for name, key in fields.items()
        }
        if title == "MiB/s":
            series["written by the guest"] = [
                (one["round"], one["dirty-pages-rate"] * PAGE_BYTES / MIB) for one in rounds
            ]
        page.chart(charts.lines(series, "round", title), caption)
    columns = ("round", "pages", "zero-pages", "bytes", "wire-bytes", "ms")
    rows = [[*(one[name] for name in columns), one["bottleneck"] or ""] for one in rounds]
    page.table((*columns, "busiest stage"), rows)


def _stages(page: Page, seen: Mapping[str, Any]) -> None:
    """Their shares of the time, and what that means."""
    page.heading("What limits")
    page.words(f"Here {advice(seen)}.")
    known = {name: shares for name, shares in seen["stages"].items() if shares is not None}
    series = {
        share: [100 * (shares[share] or 0) for shares in known.values()]
        for share in ("busy", "starved", "blocked")
    }
    page.chart(
        charts.stacked(series, list(known), "% of the time"),
        "Of each stage's time: at work, without input, waiting for the next stage."
        " Of scan and send only the work is measured.",
    )


def _downtime(page: Page, parts: Mapping[str, int | None]) -> None:
    page.heading("Downtime")
    known = {name: [float(ms)] for name, ms in parts.items() if ms is not None}
    if known:
        page.chart(
            charts.stacked(known, ["downtime"], "ms"),
            "What the guest waited for, from its stop at the source to its start.",
        )
        page.table(("part", "ms"), [(name, ms[0]) for name, ms in known.items()])


def _decisions(page: Page, result: Result) -> None:
    page.heading("Decisions")
    if not result.decisions:
        page.words("None but the switch-over: it got on by itself.")
        return
    rows = [(one.ms, one.what, one.why) for one in result.decisions]
    page.table(("ms after the start", "what", "why"), rows)
