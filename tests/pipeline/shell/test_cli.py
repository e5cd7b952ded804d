"""The command line: which function is called with what, what is printed where, exit codes."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import structlog

from pipeline.config.loading import load_config
from pipeline.config.model import Config
from pipeline.progress import Observer, Progress
from pipeline.result import Result
from pipeline.shell.cli import run_command
from protocol.errors import ConfigError, PeerLost
from protocol.status import Status
from protocol.uri import Uri

ROOT = Path(__file__).parents[3]
GOOD = Result(status=Status.COMPLETED, total_time=1234, verified=True, self_check="clean")


class Engine:
    """Stands in for the engine: notes how it was called, answers `end`."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.end: Result | BaseException = GOOD

    def serve_source(
        self,
        config: Config,
        uri: Uri | None,
        qmp: Path | None,
        observer: Observer,
        *,
        on_each: Callable[[Result], None],
    ) -> Result:
        """As pipeline.monitor.source's."""
        return self._answer(observer, "migrate", config, uri, qmp)

    def serve_destination(
        self,
        config: Config,
        uri: Uri | None,
        qmp: Path | None,
        stay: float | None,
        observer: Observer,
    ) -> Result:
        """As pipeline.monitor.destination's."""
        return self._answer(observer, "incoming", config, uri, stay)

    def run(self, config: Config, qmp: Path | None, observer: Observer) -> Result:
        """As pipeline.shell.local's."""
        return self._answer(observer, "run", config, qmp)

    def _answer(self, observer: Observer, *call: object) -> Result:
        self.calls.append(call)
        observer(Progress(Status.ACTIVE, 0.5, 1, 10))
        structlog.get_logger().info("a word", about="something")
        if isinstance(self.end, BaseException):
            raise self.end
        return self.end


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    made = Engine()
    places = {
        "monitor.source": made.serve_source,
        "monitor.destination": made.serve_destination,
        "shell.local": made.run,
    }
    for name, function in places.items():
        module = ModuleType(f"pipeline.{name}")
        setattr(module, function.__name__, function)
        monkeypatch.setitem(sys.modules, module.__name__, module)
    yield made
    structlog.reset_defaults()


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "c.yaml"
    path.write_text("guest: {kind: synthetic}\n")
    return str(path)


def complaint(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 2) -> str:
    """The one line that `arguments` get."""
    assert run_command(list(arguments)) == code
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1
    assert shown.err.startswith("pageferry: ")
    return shown.err.removeprefix("pageferry: ").rstrip()


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
    assert "the result cannot be written: [Errno 28]" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["fly"], "No such command 'fly'."),
        (["run"], "Missing argument 'CONFIG'."),
        (["run", "FILE", "--fast"], "No such option: --fast"),
        (["run", "FILE", "--log-format", "xml"], "Invalid value for '--log-format': "),
        (["run", "FILE", "--set"], "Option '--set' requires an argument."),
        (["incoming", "--uri", "tcp:h:1", "--stay", "-1"], "Invalid value for '--stay'"),
        (["incoming"], "uri: found none, expected --uri tcp:HOST:PORT or unix:PATH"),
        (["migrate", "FILE"], "uri: found none, expected --uri tcp:HOST:PORT or unix:PATH"),
        (["migrate", "FILE", "--uri", "tcp:h"], "uri: 'tcp:h' has no port, expected tcp:HOST:PORT"),
        (["incoming", "--uri", "rdma:h:1"], "uri: 'rdma:h:1' needs librdmacm and libibverbs"),
        (["run", "/no/file"], "/no/file: cannot be read: No such file or directory"),
        (["run", "FILE", "--set", "parameters.compress-level=10"], "--set: parameters.compress-le"),
        (["run", "FILE", "--json", "/no/folder/x"], "--json: /no/folder/x cannot be written"),
        (["run", "FILE", "--json", "/"], "--json: / cannot be written"),
        (["run", "FILE", "--report", "/no/x.html"], "--report: /no/x.html cannot be written"),
        (
            ["run", "FILE", "--set", "capabilities.pause-before-switchover=true"],
            "capabilities.pause-before-switchover: found true, expected --qmp PATH with it",
        ),
        (["check", "FILE", "--set", "tracker=x"], "--set: tracker: found 'x', expected 'auto'"),
        (
            ["run", "FILE", "--set", "guest={kind: file, path: /no/guest}"],
            "guest.path: /no/guest does not exist",
        ),
        (
            ["incoming", "--uri", "tcp:h:1", "--set", "destination.path=/no/folder/x"],
            "destination.path: there is no folder /no/folder",
        ),
    ],
)
def test_a_users_mistake_is_one_line(
    engine: Engine,
    file: str,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    line: str,
) -> None:
    """A traceback, a usage screen, or a migration that starts all the same."""
    told = complaint(capsys, *(file if text == "FILE" else text for text in arguments))
    assert told.startswith(line)
    assert engine.calls == []


def test_who_asks_for_nothing_gets_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    """Somebody new who is told that a command is missing, and not which ones there are."""
    assert run_command([]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "Usage: pageferry" in shown.err
    assert "incoming" in shown.err


def test_each_end_checks_its_own_part(engine: Engine, file: str) -> None:
    """The source refused for a destination path that only the other machine has."""
    far = ["--uri", "tcp:h:1", "--set", "destination.path=/no/folder/x"]
    assert run_command(["migrate", file, *far]) == 0
    guest = ["--uri", "tcp:h:1", "--set", "guest={kind: file, path: /no/guest}"]
    assert run_command(["incoming", file, *guest]) == 0


def test_check_prints_what_is_meant(
    file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An effective configuration that loads as another one."""
    assert run_command(["check", file, "--set", "verify=off", "--set", "batch-pages=7"]) == 0
    printed = tmp_path / "printed.yaml"
    printed.write_text(capsys.readouterr().out)
    assert load_config(printed) == load_config(Path(file), ["verify=off", "batch-pages=7"])
    assert "memory: 512MiB" in printed.read_text()
    assert printed.read_text().startswith("name: guest\nguest:\n")


NO_KEYS = "{keys: /no/keys, peers: [/no/peer.key]}"


@pytest.mark.parametrize(
    ("option", "code", "lines"),
    [
        ("uri='tcp:192.0.2.1:4444'", 2, ["uri: tcp:192.0.2.1:4444 is not of this machine alone"]),
        (f"security={NO_KEYS}", 2, ["security.keys: there is no /no/keys: `pageferry keygen"]),
        (
            "guest.socket=/no/guest",
            0,
            ["migrate would refuse it here: guest.socket: no guest listens at /no/guest"],
        ),
        (
            "destination.path=/no/folder/x",
            0,
            ["incoming would refuse it here: destination.path: there is no folder /no/folder"],
        ),
        ("uri='tcp:127.0.0.1:4444'", 0, []),
        ("security={insecure: true}", 0, []),
    ],
)
def test_check_tells_what_would_be_refused_here(
    file: str, capsys: pytest.CaptureFixture[str], option: str, code: int, lines: list[str]
) -> None:
    """A file that is called good, and that no command takes; one for the other machine, called
    bad."""
    assert run_command(["check", file, "--set", option]) == code
    shown = capsys.readouterr()
    assert shown.out.startswith("name: guest\nguest:\n")
    told = shown.err.splitlines()
    assert len(told) == len(lines)
    for line, expected in zip(told, lines, strict=True):
        assert line.startswith(f"pageferry: {expected}")


def test_schema(capsys: pytest.CaptureFixture[str]) -> None:
    """A schema that is not JSON, or with Python's names."""
    assert run_command(["schema"]) == 0
    assert "commit-timeout" in json.loads(capsys.readouterr().out)["properties"]


@pytest.mark.parametrize("command", ["run", "incoming", "migrate", "check", "schema"])
def test_help_has_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A command that shows no way to use it."""
    assert run_command([command, "--help"]) == 0
    assert f"\n  pageferry {command} " in capsys.readouterr().out.replace("schema >", "schema  >")


def python(*arguments: str) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment,
        check=False,
    )


def test_as_a_process(file: str) -> None:
    """A command that works only inside the tests."""
    good = python("-m", "pipeline", "check", file)
    assert (good.returncode, good.stderr) == (0, "")
    bad = python("-m", "pipeline", "check", file, "--set", "verify=x")
    assert (bad.returncode, bad.stdout) == (2, "")
    assert bad.stderr == (
        "pageferry: --set: verify: found 'x', expected 'full', 'frames' or 'off'\n"
    )


def test_the_main_module_is_light() -> None:
    """Every worker process paying for the command line when it imports the main module."""
    code = "import sys; import pipeline.__main__; print(*sys.modules)"
    modules = python("-c", code).stdout.split()
    assert "pipeline.__main__" in modules
    assert not {"typer", "pydantic", "pipeline.shell.cli", "pipeline.config.model"} & set(modules)


def test_check_loads_nothing_that_it_does_not_use(file: str) -> None:
    """A second of start-up for a command that only reads a file."""
    code = (
        "import sys; from pipeline.shell.cli import run_command\n"
        f"run_command(['check', {file!r}]); print(*sys.modules)"
    )
    modules = python("-c", code).stdout.split()
    assert "pipeline.config.loading" in modules
    assert not {"structlog", "rich.live", "zmq", "numpy", "psutil"} & set(modules)


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["resolve", "ab" * 16], 1, "no record"),
        (["resolve", "../x"], 2, "SESSION: found '../x', expected 32 hexadecimal digits"),
        (["resolve", "abc", "--peer-record", "/no/such"], 2, "SESSION: found 'abc', expected 32"),
        (["resolve", "ab" * 16, "--peer-record", "/no/such"], 1, "no record"),
        (["guest", "configs/guest.yaml", "--socket", "/no/such/folder/g"], 2, "cannot listen at"),
        (["guest", "configs/file.yaml", "--socket", "/tmp/x"], 2, "found one of kind file"),
        (["guest", "configs/guest.yaml"], 2, "--socket"),
    ],
)
def test_mistakes_with_guests_and_records_are_one_line(
    arguments: list[str], code: int, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A traceback for what somebody types who has just lost a guest."""
    assert run_command(arguments) == code
    words = capsys.readouterr().err
    assert told in words
    assert words.count("\n") == 1


def test_a_cleanup_with_nothing_to_do_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """Words about other people's sessions, or an error for an empty folder."""
    assert run_command(["cleanup"]) == 0
    assert capsys.readouterr().out == ""
