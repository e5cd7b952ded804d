"""`check` and `schema`, and commands as processes of their own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.config.loading import load_config
from pipeline.shell.cli import run_command

ROOT = Path(__file__).parents[3]


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
