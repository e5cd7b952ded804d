"""What the source has open: nothing of it stays where the rest cannot be had."""

from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from pipeline.config.model import Config
from pipeline.signals import Flag
from pipeline.source.engine import SourceEngine
from pipeline.source.tracking import Tracking
from protocol.uri import parse_uri
from tests.faults.memories import LeavingMemory, random_words
from tests.system.migrations import settings


@pytest.fixture(name="guest")
def _guest() -> Iterator[LeavingMemory]:
    with closing(LeavingMemory(random_words(1))) as guest:
        yield guest


def descriptors() -> Counter[Path]:
    """What this process has open."""
    return Counter(e.readlink() for e in Path("/proc/self/fd").iterdir() if e.exists())


@pytest.mark.parametrize("scarce", ["tempfile.mkdtemp", "zmq.Poller.register"])
def test_what_was_open_is_closed_where_something_cannot_be_had(
    guest: LeavingMemory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scarce: str
) -> None:
    """A folder, a socket and shared memory for each migration that never began."""

    def fail(*_: object, **__: object) -> None:
        raise OSError(24, "Too many open files")

    config = Config.model_validate(settings())
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(scarce, fail)
    before = descriptors()
    with pytest.raises(OSError, match="Too many open files"):
        SourceEngine(
            config,
            guest,
            Tracking("hash", "asked for"),
            parse_uri("tcp:127.0.0.1:1"),
            Flag(),
            lambda _: None,
        )
    assert not descriptors() - before
    assert not list(tmp_path.iterdir())
