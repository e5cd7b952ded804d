"""`pageferry history`: what it lists, and which commands leave a line."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from pipeline.records.history import keep
from pipeline.records.store import HISTORY, make_state_folder, state_folder
from pipeline.result import Ram, Result
from pipeline.shell.cli import run_command
from protocol.status import Status

MOVED = Result(
    status=Status.COMPLETED,
    total_time=1234,
    downtime=56,
    name="web",
    session="ab" * 16,
    ram=Ram(total=3 << 20, transferred=2048, normal_bytes=4096),
)


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    yield
    structlog.reset_defaults()


def test_a_machine_without_history(capsys: pytest.CaptureFixture[str]) -> None:
    """A traceback for whoever looks too early; a folder that looking makes."""
    assert run_command(["history"]) == 0
    assert capsys.readouterr().out.split() == [
        "ended", "name", "role", "status", "total", "downtime", "memory", "ratio", "session",
        "reason",
    ]  # fmt: skip
    assert not state_folder().exists()


def test_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    """Columns that are not below each other, or a failed one that is left out."""
    keep("source", MOVED)
    why = "no guest\n answers"
    keep("destination", Result(status=Status.FAILED, name="a\x1b[31m\nb", error_desc=why))
    assert run_command(["history"]) == 0
    head, first, second = capsys.readouterr().out.splitlines()
    assert first.split()[1:] == [
        "web", "source", "completed", "1234", "ms", "56", "ms", "3MiB", "2.00", "ab" * 16, "-"
    ]  # fmt: skip
    assert second.split()[1:] == ["a?[31m", "b", "destination", "failed", *"-----", *why.split()]
    assert head.index("status") == first.index("completed") == second.index("failed")
    assert head.index("reason") == second.index("no guest answers")


@pytest.mark.parametrize(("columns", "shown"), [(80, 24), (150, 40)])
def test_a_reason_is_cut_to_the_terminal(
    columns: int, shown: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table that is torn by one long reason, or a reason of which nothing is left."""
    keep("source", Result(status=Status.FAILED, name="a", session="ab" * 16, error_desc="x" * 200))
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert run_command(["history"]) == 0
    assert capsys.readouterr().out.splitlines()[1].endswith(f" {'x' * (shown - 3)}...")


def test_a_guest_that_is_wrong_is_a_reason(capsys: pytest.CaptureFixture[str]) -> None:
    """A migration that failed by its guest's own word, listed as one like all others."""
    keep("source", Result(status=Status.COMPLETED, verified=True, self_check="page 7 is stale"))
    assert run_command(["history"]) == 0
    assert capsys.readouterr().out.endswith("  page 7 is stale\n")


def test_the_newest_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    """The oldest ones; fields that only the table lacks room for."""
    for name in "abc":
        keep("source", Result(name=name, error_desc="why"))
    assert run_command(["history", "--json", "--last", "2"]) == 0
    shown = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["name"] for one in shown] == ["b", "c"]
    assert {"ended", "role", "error-desc", "guest-alive"} <= shown[0].keys()


def test_broken_lines_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    """A history with holes that nobody knows of; a warning between the lines of JSON."""
    keep("source", MOVED)
    with (state_folder() / HISTORY).open("a") as file:
        file.write("rubbish\n{}\n")
    assert run_command(["history", "--json", "--log-format", "json"]) == 0
    shown = capsys.readouterr()
    assert shown.out.count("\n") == 1
    told = json.loads(shown.err)
    assert (told["level"], told["lines"]) == ("warning", 2)


@pytest.mark.parametrize("arguments", [["--last", "0"], ["--last", "x"], ["more"]])
def test_mistakes(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    """All of it listed for --last 0."""
    assert run_command(["history", *arguments]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_one_that_cannot_be_read(capsys: pytest.CaptureFixture[str]) -> None:
    """A traceback, or an empty list that is taken for the truth."""
    (make_state_folder() / HISTORY).mkdir()
    assert run_command(["history"]) == 1
    shown = capsys.readouterr()
    assert "cannot be read: it is no file" in shown.err
    assert shown.out == ""
