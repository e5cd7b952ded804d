"""Commands whose extra was installed in part, or not at all: one line says what is missing."""

import sys
from pathlib import Path

import pytest

from pipeline.shell.cli import run_command

BATCH = """
hosts: {a: {memory: 1GiB}, b: {memory: 1GiB}}
migrations: [{name: there, source: a, destination: b}]
defaults: {guest: {kind: file, path: /nowhere}}
"""
EXPERIMENT = "configs/experiments/level-threads.yaml"


@pytest.mark.parametrize(
    ("missing", "arguments", "words"),
    [
        (["cryptography"], ["batch", "run", "P"], "batch run needs the package cryptography"),
        (
            ["distributed", "cryptography"],
            ["batch", "run", "P"],
            "batch run needs the packages distributed, cryptography:"
            " pip install distributed cryptography",
        ),
        (["matplotlib"], ["tune", EXPERIMENT, "--out", "O"], "tune needs the package matplotlib"),
        (["distributed"], ["host", "a", "--scheduler", "tcp://127.0.0.1:9"], "host needs the"),
    ],
)
def test_what_is_missing_is_named_before_anything_is_made(
    missing: list[str],
    arguments: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A traceback, a journal or a folder of results of a command that cannot run."""
    plan = tmp_path / "plan.yaml"
    plan.write_text(BATCH)
    for package in missing:
        monkeypatch.setitem(sys.modules, package, None)
    paths = {"P": str(plan), "O": str(tmp_path / "out")}
    assert run_command([paths.get(one, one) for one in arguments]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1
    assert list(tmp_path.iterdir()) == [plan]
