"""The command line: which function is called with what, what is printed where, exit codes."""

import json
from pathlib import Path

import pytest

from pipeline.result import Result
from pipeline.shell.cli import run_command
from protocol.errors import ConfigError, PeerLost
from protocol.status import Status
from protocol.uri import Uri
from tests.pipeline.shell.engine import GOOD, Engine


def test_run(engine: Engine, file: str) -> None:
    """An option that is lost on the way to the engine."""
    assert run_command(["run", file, "--set", "codec=lz4", "--set", "name=x"]) == 0
    [(name, config, _)] = engine.calls
    assert (name, config.codec, config.name) == ("run", "lz4", "x")


def test_migrate(engine: Engine, file: str) -> None:
    """The option losing against the file, or the file's uri not used."""
    assert run_command(["migrate", file, "--uri", "tcp:h:1", "--set", "uri=unix:/x"]) == 0
    assert run_command(["migrate", file, "--set", "uri=unix:/x"]) == 0
    assert [call[2] for call in engine.calls] == [Uri("tcp", "h", 1), Uri("unix", path="/x")]


def test_incoming(engine: Engine, file: str) -> None:
    """An incoming end that asks for a guest, or that loses --stay."""
    assert run_command(["incoming", "--uri", "tcp:h:1"]) == 0
    assert run_command(["incoming", file, "--uri", "tcp:h:1", "--stay", "2.5"]) == 0
    assert [call[3] for call in engine.calls] == [None, 2.5]


def test_summary_and_progress(
    engine: Engine, file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Progress or logs on standard output, the table on standard error."""
    assert run_command(["run", file]) == 0
    shown = capsys.readouterr()
    assert "total time    1234 ms" in shown.out
    assert "0.5 s: active" in shown.err
    assert "a word" in shown.err
    assert "active" not in shown.out


def test_quiet(engine: Engine, file: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`--quiet` that still writes."""
    assert run_command(["run", file, "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")


def test_json_on_standard_output(
    engine: Engine, file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A table behind the JSON: no program can read that."""
    assert run_command(["run", file, "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["total-time"] == 1234


def test_a_report_is_a_page(file: str, engine: Engine, tmp_path: Path) -> None:
    """A report that is left out where it is needed most: after a failure."""
    page = tmp_path / "page.html"
    engine.end = Result(status=Status.FAILED, error_desc="it broke")
    assert run_command(["run", file, "--report", str(page)]) == 1
    assert "it broke" in page.read_text()
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".html"] == ["page.html"]


def test_json_in_a_file(
    engine: Engine, file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A result written only when all went well, or no table beside it."""
    path = tmp_path / "out.json"
    assert run_command(["run", file, "--json", str(path)]) == 0
    assert "total time" in capsys.readouterr().out
    engine.end = Result(status=Status.FAILED, error_desc="it broke")
    assert run_command(["run", file, "--json", str(path)]) == 1
    assert json.loads(path.read_text())["error-desc"] == "it broke"


@pytest.mark.parametrize(
    ("end", "code", "line"),
    [
        (Result(status=Status.FAILED, error_desc="it\nbroke"), 1, "failed: it broke"),
        (Result(status=Status.CANCELLED, error_desc="asked for"), 130, "cancelled"),
        (Result(status=Status.COMPLETED, self_check="page 7"), 1, "failed: page 7"),
        (
            Result(status=Status.COMPLETED, verified=False),
            1,
            "failed: the memory that arrived differs",
        ),
        (ConfigError("uri: tcp:h:1 is in use"), 2, "uri: tcp:h:1 is in use"),
        (PeerLost("no answer"), 1, "failed: no answer"),
    ],
)
def test_ends(
    engine: Engine,
    file: str,
    capsys: pytest.CaptureFixture[str],
    end: Result | BaseException,
    code: int,
    line: str,
) -> None:
    """A failure that a script takes for success, or one that is not told in a line."""
    engine.end = end
    assert run_command(["run", file, "--quiet"]) == code
    assert capsys.readouterr().err == f"pageferry: {line}\n"


def test_interrupted_before_the_engine_listens(engine: Engine, file: str) -> None:
    """A traceback for Ctrl-C in the first moments, or no result of it."""
    engine.end = KeyboardInterrupt()
    path = Path(file).with_suffix(".json")
    assert run_command(["run", file, "--quiet", "--json", str(path)]) == 130
    assert json.loads(path.read_text())["status"] == "cancelled"


def test_a_failure_before_the_engine_runs_leaves_a_result(engine: Engine, file: str) -> None:
    """A script that reads a result which was never written, or that of the run before."""
    engine.end = PeerLost("no answer")
    path = Path(file).with_suffix(".json")
    assert run_command(["run", file, "--quiet", "--json", str(path)]) == 1
    assert json.loads(path.read_text())["error-desc"] == "no answer"


def test_a_result_that_nobody_can_be_told_changes_nothing(
    engine: Engine, file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A guest that has moved, and a script that believes it has not."""
    engine.end = GOOD
    assert run_command(["run", file, "--quiet", "--json", "/dev/full"]) == 0
    assert "/dev/full cannot be written: No space left on device" in capsys.readouterr().err
