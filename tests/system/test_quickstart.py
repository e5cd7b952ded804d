"""The first command of the README, and both ends as processes of their own."""

from pathlib import Path

from pipeline.result import Result
from tests.system.migrations import ROOT, Command, settings


def assert_arrived(result: Result) -> None:
    """Completed, proved, and alive at the destination."""
    assert result.error_desc is None
    assert result.status == "completed"
    assert result.verified is True
    assert result.guest_alive == "destination"
    assert result.self_check in ("clean", None)


def test_the_quickstart(folder: Path) -> None:
    """The very first thing that a person tries."""
    with Command(folder, "run", str(ROOT / "configs/quickstart.yaml")) as command:
        assert command.code() == 0, command.words
        result = command.result()
    assert_arrived(result)
    assert result.self_check == "clean"
    assert len(result.rounds) >= 2
    assert result.ram is not None
    assert result.ram.total == 512 << 20
    assert result.ram.remaining == 0


def test_two_commands(folder: Path) -> None:
    """A data connection for another family of addresses than the control connection's."""
    with Command(folder, "incoming", "--uri", "tcp:[::1]:0") as there:
        uri = f"tcp:[::1]:{there.uri.port}"
        with Command(folder, "migrate", "--uri", uri, config=settings()) as here:
            assert here.code() == 0, here.words
            assert_arrived(here.result())
        assert there.code() == 0, there.words
        told = there.result()
    assert_arrived(told)
    assert told.self_check == "clean"
    assert told.guest_gap is not None
