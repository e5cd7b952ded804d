"""`--log-format json`: that whatever is said on standard error is an object a line."""

import json
import os
import pty
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
import structlog

from pipeline.logs import configure_logging, log_if_unexpected
from pipeline.progress import Counts, Progress
from pipeline.shell.cli import run_command
from pipeline.shell.display import observing
from pipeline.shell.lines import LogFormat, asked_for
from protocol.status import Status


@pytest.fixture(autouse=True)
def _reset() -> Iterator[None]:
    yield
    structlog.reset_defaults()


def told(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """The lines on standard error; nothing is on standard output."""
    shown = capsys.readouterr()
    assert shown.out == ""
    lines = [json.loads(line) for line in shown.err.splitlines()]
    for line in lines:
        assert {"timestamp", "level", "event"} <= line.keys()
        assert datetime.fromisoformat(line["timestamp"]).utcoffset() is not None
    return lines


def test_logs(capsys: pytest.CaptureFixture[str]) -> None:
    """A traceback over many lines; a field that no program can read."""
    configure_logging(quiet=False, as_json=True)
    structlog.get_logger().info("a\nword", about={"x": 1}, status=Status.ACTIVE)
    log_if_unexpected(ValueError("it broke"))
    word, bug = told(capsys)
    assert (word["event"], word["about"], word["status"]) == ("a\nword", {"x": 1}, "active")
    assert (word["level"], bug["level"]) == ("info", "error")
    assert "ValueError: it broke" in bug["exception"]


def test_progress(capsys: pytest.CaptureFixture[str]) -> None:
    """A line at each tick; numbers with units; null for what is not known."""
    configure_logging(quiet=False, as_json=True)
    with observing(quiet=False, as_json=True) as observer:
        for elapsed_s in (0.1, 0.2, 1.3):
            observer(Progress(Status.ACTIVE, elapsed_s, 1, 10.0, 4096, counts=Counts(1)))
    lines = told(capsys)
    assert [line["elapsed_s"] for line in lines] == [0.1, 1.3]
    del lines[0]["timestamp"]
    assert lines[0] == {
        "level": "info", "event": "progress", "status": "active", "elapsed_s": 0.1,
        "round_no": 1, "percent": 10.0, "transferred": 4096,
    }  # fmt: skip


def test_no_live_display_and_no_colour_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Escape sequences between the lines."""
    reader, terminal = pty.openpty()
    with os.fdopen(reader, "rb") as shown, os.fdopen(terminal, "w") as stderr:
        monkeypatch.setattr("sys.stderr", stderr)
        configure_logging(quiet=False, as_json=True)
        with observing(quiet=False, as_json=True) as observer:
            observer(Progress(Status.ACTIVE, 0.1))
        structlog.get_logger().warning("a word")
        stderr.flush()
        lines = shown.readline().decode() + shown.readline().decode()
    assert "\x1b" not in lines
    assert [json.loads(line)["event"] for line in lines.splitlines()] == ["progress", "a word"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "/no/file", "--log-format", "json"],
        ["run", "--log-format=json"],
        ["migrate", "/no/file", "--log-format", "json", "--quiet"],
        ["incoming", "--log-format", "json", "--nope"],
        ["guest", "/no/file", "--socket", "x", "--log-format", "json"],
    ],
)
def test_complaints(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    """The one line that says why it failed, lost to a reader of JSON."""
    assert run_command(arguments) == 2
    [line] = told(capsys)
    assert (line["level"], line["exit_code"]) == ("error", 2)
    assert line["event"]


def test_who_asks_for_json() -> None:
    """JSON for whoever asks for a file that is called so."""
    assert asked_for(["run", "--log-format", "json"]) is LogFormat.JSON
    assert asked_for(["run", "--json", "json", "--log-format", "text"]) is LogFormat.TEXT
    assert asked_for([]) is LogFormat.TEXT
