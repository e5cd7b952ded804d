"""The file of a saved guest: sealed, read back from the disk, refused where it is not whole."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xxhash

from pipeline.config.model import Config
from pipeline.result import Result
from pipeline.streams.read_back import FileReadBack
from pipeline.streams.saved import SavedReader, SavedWriter, open_saved
from protocol import control as c
from protocol.channel import Channel
from protocol.devices import encode_global_state, encode_sections
from protocol.errors import MigrationError, RemoteProtocolError
from protocol.frames import FrameLimits
from protocol.stream import Kind, Record
from protocol.uri import Uri
from tests.faults.fake_peers import frame
from tests.protocol.samples import SESSION, flipped
from tests.system.migrations import incoming, nobody, settings
from workers.pages import ZERO_HASH

PAGES = 8
LIMITS = FrameLimits(SESSION, (PAGES,), 4)
HELLO = c.Hello(
    name="saved",
    kind="file",
    blocks=[c.BlockInfo("memory", PAGES)],
    batch_pages=4,
    codec="none",
    verify="full",
    connections=1,
    machine="",
    disks=[],
)
ROUND = c.RoundStart(round_no=1, first_seq=1)
DEVICES = c.Devices(data=encode_sections([encode_global_state("paused")]), last=True)

Item = c.AnyMessage | list[bytes]


def digest(pages: list[int]) -> int:
    """Of the hashes of a memory in which `pages` are ones, the rest zeros."""
    table = np.full(PAGES, ZERO_HASH, np.uint64)
    page = b"\1" * 4096
    table[pages] = xxhash.xxh3_64_intdigest(page, int.from_bytes(SESSION[:8], "little"))
    return xxhash.xxh3_64_intdigest(table)


VERIFY = c.Verify(last_seq=1, digests=[digest([1, 3])])
GOOD: list[Item] = [HELLO, ROUND, frame([1, 3]), VERIFY, DEVICES]


def written(path: Path, items: list[Item]) -> bytes:
    """A saved guest of `items` at `path`, with a right seal; its bytes."""
    writer, channel = SavedWriter(path), Channel(SESSION)
    for item in items:
        if isinstance(item, list):
            writer.write(Record(Kind.FRAME, 0, [memoryview(part) for part in item]))
        else:
            writer.write(Record(Kind.CONTROL, 0, [memoryview(channel.outgoing(item))]))
    writer.finish()
    writer.publish()
    os.close(writer.fd)
    return path.read_bytes()


def fault(content: bytes) -> str:
    """What a reader says of a file of this content; "" where it is whole."""
    fd = os.memfd_create("saved")
    try:
        os.write(fd, content)
        reader = SavedReader(fd)
        while reader.maybe_next() is not None:
            pass
        return "" if reader.is_whole else "its end is missing"
    except RemoteProtocolError as error:
        return str(error)
    finally:
        os.close(fd)


def test_cut_anywhere_or_any_bit_flipped(tmp_path: Path) -> None:
    """A guest that is not whole, or not right, and passes for one."""
    content = written(tmp_path / "guest", GOOD)
    assert [path.name for path in tmp_path.iterdir()] == ["guest"]
    assert fault(content) == ""
    assert all(fault(content[:size]) for size in range(len(content)))
    assert fault(content + b"\0") == "something follows its end"
    bits = [*range(64 * 8), *range(64 * 8, len(content) * 8, 61)]
    assert [bit for bit in bits if not fault(flipped(content, bit))] == []


def test_what_the_disk_holds_is_read_back(tmp_path: Path) -> None:
    """A verification of what was written from memory, whatever the disk has made of it."""
    writer = SavedWriter(tmp_path / "guest")
    writer.write(Record(Kind.FRAME, 0, [memoryview(part) for part in frame([1, 3])]))
    writer.flush()
    good = FileReadBack(SavedReader(writer.fd), LIMITS, full=True)
    good.read_on(lambda: None)
    assert good.digests() == [digest([1, 3])]
    os.pwrite(writer.fd, b"\2", os.fstat(writer.fd).st_size - 5)
    damaged = FileReadBack(SavedReader(writer.fd), LIMITS, full=True)
    with pytest.raises(RemoteProtocolError, match="wrong digest"):
        damaged.read_on(lambda: None)
    os.close(writer.fd)


def test_a_name_is_never_taken_away(tmp_path: Path) -> None:
    """The file of somebody who was quicker."""
    path = tmp_path / "guest"
    written(path, GOOD)
    with pytest.raises(MigrationError, match="guest cannot be saved: File exists"):
        written(path, GOOD)
    with pytest.raises(MigrationError, match="cannot be saved: No such file or directory"):
        SavedWriter(tmp_path / "no" / "guest")


def loaded(folder: Path, items: list[Item]) -> Result:
    """How it ends to load a sealed file of `items`."""
    path = folder / "guest"
    written(path, items)
    os.close(open_saved(path))
    config = Config.model_validate(settings())
    result = incoming(config, Uri("file", path=str(path)), None, nobody)
    path.unlink()
    return result


def test_a_file_that_is_made_by_hand_is_loaded(folder: Path) -> None:
    """Refusals below that come from something else than what was changed."""
    there = loaded(folder, GOOD)
    assert (there.status, there.error_desc, there.verified) == ("completed", None, True)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda items: items[1:], "in stage idle"),
        (lambda items: [items[2], *items], "does not begin with a hello"),
        (lambda items: items[:1] + items[2:], "no frame 1 where it should be"),
        (lambda items: items[:-1], "has no device state"),
        (lambda items: [items[0], items[2], items[1], *items[3:]], "no frame 1 where it should"),
        (lambda items: [items[0], c.RoundStart(round_no=1, first_seq=3)], "a round from frame 3"),
        (lambda items: [*items[:2], *items[3:]], "a verification of 1 frames, after 0"),
        (lambda items: [*items[:3], *items[2:]], "no frame 2 where it should be"),
        (lambda items: [*items[:2], frame([1, PAGES]), *items[3:]], "outside its block"),
        (lambda items: [*items[:2], [b"short"], *items[3:]], "no frame 1 where it should be"),
        (lambda items: [*items[:2], frame([1]), *items[3:]], "do not agree on what was sent"),
        (lambda items: [*items[:4], c.Commit(), items[4]], "Commit"),
        (lambda items: [*items[:3], *items[3:4] * 2, items[4]], "Verify"),
    ],
)
def test_a_hostile_file_starts_nothing(
    folder: Path, change: Callable[[list[Item]], list[Item]], told: str
) -> None:
    """Its seal is right, what it says is not."""
    there = loaded(folder, change(GOOD))
    assert there.status == "failed"
    assert there.guest_alive == "source"
    assert told in (there.error_desc or "")
