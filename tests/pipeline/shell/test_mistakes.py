"""Mistakes in the command line: one line, a defined exit code, and nothing is begun."""

import pytest

from pipeline.shell.cli import run_command
from tests.pipeline.shell.engine import Engine, complaint


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
        (["run", "FILE", "--json", "/"], "--json: / is a folder, expected a file"),
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
