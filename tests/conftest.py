"""What tests share: state of their own, and a folder in which nothing may be left.

The docstring of a test says what it catches: the mistake that there would be without it.
"""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.leaks import nothing_left


@pytest.fixture(autouse=True, scope="session")
def _own_records(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test sees, or leaves, a record of whoever runs it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(autouse=True, scope="session")
def _signals_are_heard() -> None:
    """Where whoever runs the tests ignores some, as nohup does, commands would do so, too."""
    for number in (signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            default = signal.default_int_handler if number is signal.SIGINT else signal.SIG_DFL
            signal.signal(number, default)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path for sockets and files; the test fails for whatever is left behind."""
    with nothing_left() as made:
        yield made


@pytest.fixture
def files(folder: Path) -> Iterator[Path]:
    """A folder whose files go with the test."""
    yield folder
    for path in folder.iterdir():
        if path.is_file():
            path.unlink()
