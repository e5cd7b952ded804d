"""An end begins once, or never: whoever is first decides, whatever is repeated."""

from pathlib import Path
from subprocess import SubprocessError

import pytest

from pipeline.cluster.ends import forbid, stop
from pipeline.cluster.folder import EndFolder, new_lines
from pipeline.cluster.launching import end, start_with_us
from pipeline.records.processes import maybe_process, this_process
from tests.pipeline.guests.helpers import wait_until

TOKEN = "0123456789abcdef"


@pytest.fixture
def end_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EndFolder:
    """That of a source, on a host that knows nothing."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return EndFolder(TOKEN, "source")


def test_one_that_is_forbidden_never_begins(end_folder: EndFolder) -> None:
    """A migration that was given up, and begins when its host comes back."""
    assert end_folder.forbid()
    assert end_folder.forbid()
    with pytest.raises(FileExistsError):
        end_folder.begin()
    assert end_folder.maybe_process() is None
    assert not end_folder.claim()


def test_one_that_has_begun_cannot_be_forbidden(end_folder: EndFolder) -> None:
    """A guest that is moved again, while it leaves."""
    assert end_folder.claim()
    end_folder.begin()
    assert not end_folder.forbid()
    assert end_folder.maybe_process() == this_process()
    with pytest.raises(FileExistsError):
        end_folder.begin()


def test_a_process_that_is_forbidden_is_not_started(end_folder: EndFolder) -> None:
    """The moment between the claim and the start, in which somebody gives the attempt up."""
    assert end_folder.claim()
    assert end_folder.forbid()
    with pytest.raises(SubprocessError):
        start_with_us(["true"], end_folder.log, end_folder.begin)


def test_the_end_is_waited_for_by_whoever_asks(end_folder: EndFolder) -> None:
    """An end that outlives its host's command, and that nobody finds again."""
    assert end_folder.claim()
    script = 'echo \'{"event": "listening"}\'; sleep 0.3; echo \'{"event": "the end"}\''
    pid = start_with_us(["sh", "-c", script], end_folder.log, end_folder.begin)
    heard: list[object] = []
    found = forbid(TOKEN, "source", heard.append)
    assert found.begun
    assert found.result is None
    assert found.words == "the end"
    assert heard == [{"event": "listening"}, {"event": "the end"}]
    assert maybe_process(pid) is None
    assert forbid(TOKEN, "source", heard.append) == found


def test_nothing_was_begun(end_folder: EndFolder) -> None:
    """An answer that says that an end ran which never did."""
    assert not forbid(TOKEN, "source", lambda _: None).begun
    assert not stop(TOKEN, "source")


def test_it_is_told_to_end(end_folder: EndFolder) -> None:
    """A cancelled migration that goes on."""
    assert end_folder.claim()
    pid = start_with_us(["sleep", "60"], end_folder.log, end_folder.begin)
    wait_until(lambda: end_folder.maybe_process() is not None)
    assert stop(TOKEN, "source")
    wait_until(lambda: maybe_process(pid) is None)
    end(None)


def test_lines_are_read_once_and_whole(tmp_path: Path) -> None:
    """Half a line that is taken for one; a line that is told twice."""
    path = tmp_path / "log"
    assert new_lines(path, 0) == ([], 0)
    path.write_bytes(b"one\ntw")
    lines, at = new_lines(path, 0)
    assert lines == [b"one"]
    assert new_lines(path, at) == ([], at)
    with path.open("ab") as file:
        file.write(b"o\nthree\n")
    assert new_lines(path, at) == ([b"two", b"three"], path.stat().st_size)
