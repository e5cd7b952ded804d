"""`pageferry batch` as a command line: dry runs, mistakes, what is said without a cluster."""

import json
import re
from pathlib import Path

import pytest

from pipeline.batch.journal import MoveRow
from pipeline.batch.loading import load_plan
from pipeline.batch.plan import (
    Guest,
    Hooks,
    Host,
    Limits,
    Migration,
    Plan,
    Retries,
    Timeouts,
    Window,
)
from pipeline.batch.summary import summary
from pipeline.config.model import Section
from pipeline.shell.batch_display import table
from pipeline.shell.cli import run_command

ROOT = Path(__file__).parents[3]
EXAMPLE = str(ROOT / "configs/batch/embedded.yaml")
FULL = """
hosts: {a: {memory: 0}, b: {memory: 0}}
migrations:
  - {name: there, source: a, destination: b}
  - {name: back, source: b, destination: a}
defaults: {guest: {kind: file, path: "/nowhere/{name}"}}
"""


def test_a_dry_run_says_who_goes_where(capsys: pytest.CaptureFixture[str]) -> None:
    """A plan that is printed, and not what comes of it."""
    assert run_command(["batch", "plan", EXAMPLE]) == 0
    said = capsys.readouterr().out
    assert "embedded: 6 guests, " in said
    assert "a is empty after " in said
    assert run_command(["batch", "plan", EXAMPLE, "--json", "-"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert {one["name"] for one in told["moves"]} == {f"g{number}" for number in range(1, 7)}
    assert told["cannot-move"] == []
    assert max(one["ends"] for one in told["moves"]) == told["seconds"]


def test_hosts_that_wait_for_each_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A night in which nothing begins, and nobody says why."""
    path = tmp_path / "plan.yaml"
    path.write_text(FULL)
    assert run_command(["batch", "plan", str(path)]) == 1
    said = capsys.readouterr().out
    where = f"cannot move: {path}:{{}}: migrations.{{}}: "
    assert where.format(4, 0) + "there from a: no room for its 1GiB at b\n" in said
    assert where.format(5, 1) + "back from b: no room for its 1GiB at a\n" in said
    assert run_command(["batch", "run", str(path)]) == 2
    said = capsys.readouterr().err
    assert f"{path}:4: migrations.0: there from a: no room for its 1GiB at b" in said
    path.write_text(FULL.replace("b: {memory: 0", "b: {memory: 1GiB"))
    assert run_command(["batch", "plan", str(path)]) == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["plan", "/no/plan.yaml"], "/no/plan.yaml: cannot be read"),
        (["status", EXAMPLE], "no batch was begun"),
        (["pause", EXAMPLE], "no batch was begun"),
        (["cancel", EXAMPLE, "g1"], "no batch was begun"),
        (["limit", EXAMPLE, "per-source=0"], "expected KEY=NUMBER with one of cluster"),
        (["limit", EXAMPLE, "guests=3"], "found 'guests=3'"),
        (["run", EXAMPLE, "--events", "/no/folder/x"], "--events: /no/folder/x cannot be written"),
        (["run", EXAMPLE, "--report", "/no/folder/x.html"], "/no/folder/x.html cannot be written"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A traceback; a batch that is begun although its report cannot be written."""
    assert run_command(["batch", *arguments]) == 2
    said = capsys.readouterr().err.strip()
    assert words in said
    assert "\n" not in said


def test_a_scheduler_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A dry run that says that all is well, of a cluster that nobody has."""
    path = tmp_path / "plan.yaml"
    text = FULL.replace("memory: 0", "memory: 1GiB")
    path.write_text(text + "scheduler: tcp://127.0.0.1:9\n")
    assert run_command(["batch", "plan", str(path)]) == 2
    assert f"{path}:7: scheduler: tcp://127.0.0.1:9: no scheduler there" in capsys.readouterr().err


def test_alone_it_says_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    """All of its help on one line, as if it were a mistake."""
    assert run_command(["batch"]) == 2
    said = capsys.readouterr().err
    assert "\n  plan " in said
    assert "\n  limit " in said


@pytest.mark.parametrize("example", sorted((ROOT / "configs/batch").glob("*.yaml")), ids=str)
def test_examples_are_plans(example: Path) -> None:
    """An example that is refused."""
    _, moves = load_plan(example)
    assert moves


def test_a_reason_is_shown_as_it_is() -> None:
    """Words of a hook that are taken for markup, or steer the terminal."""
    reason = "cannot mount [/dev/sda1]: busy :smile:\x1b[2J"
    row = MoveRow("g1", "a", 1, state="failed", reason=reason)
    shown = table(summary("batch", (1.0, 2.0), [row], [], ["a"]))
    assert "[/dev/sda1]" in shown
    assert ":smile:" in shown
    assert "\x1b" not in shown


def test_every_key_is_documented() -> None:
    """A key that only the code knows."""
    text = (ROOT / "docs/batch.md").read_text()
    for model in (Plan, Host, Guest, Migration, Limits, Retries, Timeouts, Hooks, Window):
        assert issubclass(model, Section)
        for info in model.model_fields.values():
            assert re.search(rf"`[^`]*\b{info.alias}\b[^`]*`", text), info.alias
