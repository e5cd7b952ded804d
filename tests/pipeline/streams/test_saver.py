"""The saver as a real process, the source played by the test: what is kept, and what refused."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from msgspec.structs import replace

from pipeline.streams.saved import SavedReader, open_saved
from pipeline.streams.way import way_to
from protocol import control as c
from protocol.channel import message_in
from protocol.stream import Kind
from protocol.uri import Uri
from tests.faults.fake_peers import HELLO, FakeSource, frame
from tests.pipeline.streams.test_saved import DEVICES, ROUND
from tests.protocol.samples import flipped


@contextmanager
def source_that_saves(path: Path) -> Iterator[FakeSource]:
    """A source whose guest goes to the file `path`."""
    with way_to(Uri("file", path=str(path)), "source") as way, FakeSource(way.uri) as source:
        yield source


def test_a_frame_that_comes_before_its_round_stands_behind_it(folder: Path) -> None:
    """A file that nobody can play, though everything is in it."""
    with source_that_saves(folder / "guest") as source:
        lane = source.connect(source.greet(replace(HELLO, verify="off")).endpoints[0])
        lane.send_multipart(frame([1]))
        time.sleep(0.5)  # nobody says that it has arrived
        source.send(c.Holes(block=0, extents=bytes(16)))
        source.send(ROUND)
        source.expect(c.Applied)
        source.send(c.Verify(last_seq=1, digests=[]))
        source.expect(c.Verified)
        source.send(DEVICES)
        source.expect(c.Ready)
        assert not (folder / "guest").exists(), "a name before the commit"
        source.send(c.Commit())
        assert source.expect(c.Started).running is False
        source.send(c.Settled())
    fd = open_saved(folder / "guest")
    reader, found = SavedReader(fd), []
    while (record := reader.maybe_next()) is not None:
        is_said = record.kind is Kind.CONTROL
        found.append(type(message_in(record.parts[0])).__name__ if is_said else record.kind.name)
    os.close(fd)
    assert found == ["Hello", "Holes", "RoundStart", "FRAME", "Verify", "Devices", "END"]
    (folder / "guest").unlink()


def test_a_verification_is_answered_from_the_file(folder: Path) -> None:
    """A yes to whatever the source asks: pages that are not in the file, called saved."""
    with source_that_saves(folder / "guest") as source:
        lane = source.connect(source.greet().endpoints[0])
        source.send(ROUND)
        lane.send_multipart(frame([1]))
        source.expect(c.Applied)
        source.send(c.Verify(last_seq=1, digests=[7]))
        assert "does not hold what was sent" in source.expect(c.Failed).reason
    assert not (folder / "guest").exists()


def test_a_damaged_frame_that_comes_before_its_round_is_asked_for_in_it(folder: Path) -> None:
    """A saver that ends because it may not say yet what it has to say."""
    with source_that_saves(folder / "guest") as source:
        lane = source.connect(source.greet(replace(HELLO, verify="off")).endpoints[0])
        head, payload = frame([1])
        lane.send_multipart([head, flipped(payload, 5)])
        time.sleep(0.5)  # nobody says that it has arrived
        source.send(ROUND)
        assert source.expect(c.Redo).seq == 1
        lane.send_multipart(frame([1]))
        assert source.expect(c.Applied).seq == 1
    assert not (folder / "guest").exists()
