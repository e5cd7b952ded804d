"""What a person sees while it runs and at the end."""

import io
import sys

import pytest

from pipeline.progress import Progress
from pipeline.result import DowntimeParts, Ram, Result, RoundResult
from pipeline.shell.display import observing, summary
from protocol.status import Status

MIB = 1 << 20


class Terminal(io.StringIO):
    """A standard error that says that it is one."""

    def isatty(self) -> bool:
        """As a terminal would."""
        return True


def moment(elapsed_s: float, percent: float, round_no: int = 1, **more: float) -> Progress:
    return Progress(Status.ACTIVE, elapsed_s, round_no, percent, remaining=3 * MIB, **more)  # type: ignore[arg-type]


def plain_lines(capsys: pytest.CaptureFixture[str], moments: list[Progress]) -> list[str]:
    with observing(quiet=False) as observer:
        for one in moments:
            observer(one)
    shown = capsys.readouterr()
    assert shown.out == ""
    return shown.err.splitlines()


def test_plain_line_has_what_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    """A rate in the wrong unit, or None shown as text."""
    known = moment(
        1.0, 40, guest_rate=80 * MIB, dirty_pages_rate=512, ratio=2.061, expected_downtime_ms=210.4
    )
    assert plain_lines(capsys, [Progress(Status.SETUP), known]) == [
        "0.0 s: setup",
        "1.0 s: active, 40 %, round 1, left 3MiB, memory 80MiB/s, dirty 2MiB/s, ratio 2.06,"
        " downtime 210 ms",
    ]


def test_a_destination_shows_what_has_arrived(capsys: pytest.CaptureFixture[str]) -> None:
    """A percentage of something that it does not know; a line that looks dead."""
    arriving = Progress(Status.ACTIVE, 1.0, 2, received=3 * MIB)
    assert plain_lines(capsys, [arriving]) == ["1.0 s: active, round 2, received 3MiB"]


def test_plain_lines_come_once_a_second(capsys: pytest.CaptureFixture[str]) -> None:
    """A log flooded with a line a window."""
    lines = plain_lines(capsys, [moment(tenth / 10, tenth) for tenth in range(31)])
    assert [line.split(" s:")[0] for line in lines] == ["0.0", "1.0", "2.0", "3.0"]


def test_plain_lines_come_at_every_change(capsys: pytest.CaptureFixture[str]) -> None:
    """A round or a status that passes between two lines."""
    moments = [moment(0.1, 1), moment(0.2, 2), moment(0.3, 3, round_no=2)]
    lines = plain_lines(capsys, [*moments, Progress(Status.DEVICE, 0.4, 2, 100)])
    assert [line.split(" s:")[0] for line in lines] == ["0.1", "0.3", "0.4"]


def test_percent_never_runs_backwards(capsys: pytest.CaptureFixture[str]) -> None:
    """A guest that dirties faster than pages leave; an engine that counts over 100."""
    lines = plain_lines(capsys, [moment(s, p) for s, p in ((0, 50), (1, 30), (2, 60), (3, 140))])
    assert [line.split(", ")[1] for line in lines] == ["50 %", "50 %", "60 %", "100 %"]


def test_terminal_shows_a_live_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plain lines on a terminal, a line that does not fit, a percentage that falls."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    with observing(quiet=False) as observer:
        observer(moment(1, 40))
        observer(
            moment(
                2,
                30,
                round_no=12,
                guest_rate=263.4 * MIB,
                dirty_pages_rate=26_300,
                ratio=2.06,
                expected_downtime_ms=1210,
            )
        )
        shown = terminal.getvalue()
    for text in ("263.4MiB/s", "102.7MiB/s", "2.06", "1210 ms", "downtime", "40 %", "12"):
        assert text in shown
    assert "30 %" not in shown
    assert "…" not in shown


def test_quiet_shows_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--quiet` that still writes."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with observing(quiet=True) as observer:
        observer(moment(1, 40))
    assert capsys.readouterr() == ("", "")


def test_summary() -> None:
    """A figure left out of the table, or shown under another name."""
    result = Result(
        status=Status.COMPLETED,
        total_time=4210,
        downtime=212,
        downtime_parts=DowntimeParts(last_round=40, verify=130, start=2),
        ram=Ram(transferred=200 * MIB, normal_bytes=500 * MIB),
        rounds=[
            RoundResult(
                round_no=n, pages=1, zero_pages=0, bytes=300 * MIB, wire_bytes=1, ms=1,
                dirty_pages_rate=0,
            )
            for n in (1, 2)
        ],
        bottleneck="compress",
        verified=True,
        self_check="clean",
        tracker="uffd",
        tracker_reason="the kernel has it",
        guest_alive="destination",
    )  # fmt: skip
    assert summary(result).splitlines() == [
        "status        completed",
        "total time    4210 ms",
        "downtime      212 ms (last round 40, verify 130, start 2)",
        "on the wire   200MiB for 500MiB of pages, ratio 2.50",
        "rounds        2",
        "bottleneck    compress",
        "verified      all of memory",
        "self-check    clean",
        "tracker       uffd (the kernel has it)",
        "guest alive   destination, until this command ended",
    ]


@pytest.mark.parametrize(
    ("status", "about", "text"),
    [
        (Status.COMPLETED, {}, "source, where it stands still, until this command ended"),
        (Status.COMPLETED, {"lives_on": True}, "source, where it stands still"),
        (Status.COMPLETED, {"stays_still": False}, "source, until this command ended"),
        (Status.FAILED, {}, "source"),
    ],
)
def test_summary_of_a_guest_that_was_saved(
    status: Status, about: dict[str, bool], text: str
) -> None:
    """A user who believes that the guest runs on behind a command that has ended."""
    shown = summary(Result(status=status, guest_alive="source"), **about)
    assert f"guest alive   {text}\n" in shown


@pytest.mark.parametrize(
    ("verified", "text"),
    [("frames", "frames only"), (None, "not asked for"), (False, "no, it differs")],
)
def test_summary_says_how_far_it_was_verified(verified: bool | None, text: str) -> None:
    """Frames alone shown as if all of memory had been compared."""
    assert f"verified      {text}\n" in summary(Result(verified=verified))


def test_summary_of_a_destination_leaves_out_what_it_does_not_know() -> None:
    """None in the table of an incoming end."""
    shown = summary(Result(status=Status.COMPLETED, downtime=5, ram=Ram(), tracker="hash"))
    assert "None" not in shown
    assert "rounds" not in shown
    assert "downtime      5 ms\n" in shown
    assert "tracker       hash\n" in shown
