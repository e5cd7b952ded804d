"""A source that lies, against a real destination: refused with the reason, no guest started."""

import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec
import psutil
import pytest
import zmq

from pipeline.config.model import Config
from pipeline.result import Result
from protocol import control as c
from protocol.channel import Channel
from tests.faults.fake_peers import BATCH_PAGES, HELLO, PAGES, FakeSource, frame
from tests.leaks import processes_of
from tests.protocol.samples import OTHER_SESSION, forge_envelope, forge_frame
from tests.system.migrations import Destination, listen, migrate, nobody, settings

HEAD, PAYLOAD = frame([3, 4])
LONG_HEAD, LONG_PAYLOAD = frame(list(range(BATCH_PAGES + 1)))
Attack = Callable[[FakeSource], None]


def refusal(folder: Path, attack: Attack, hello: c.Hello = HELLO) -> str:
    """Why the destination ended the session after `attack`, as it told both sides."""
    target = folder / "target"
    there = Destination(settings(to=target), folder)
    with FakeSource(there.uri) as source:
        source.send(hello)
        attack(source)
        told = source.expect(c.Failed)
    result = there.result()
    assert_refused(result, told.reason)
    assert not target.exists()
    return told.reason


def assert_refused(result: Result, reason: str) -> None:
    """Failed for that reason, and nothing runs."""
    assert result.status == "failed"
    assert result.error_desc == f"load of migration failed: {reason}"
    assert result.guest_alive == "source"
    assert result.self_check is None
    assert result.verified is False


def send_frame(*parts: bytes) -> Attack:
    """An attack by one data frame in the first round."""

    def attack(source: FakeSource) -> None:
        welcome = source.expect(c.Welcome)
        source.send(c.RoundStart(round_no=1, first_seq=1))
        source.connect(welcome.endpoints[0]).send_multipart(parts)

    return attack


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ((forge_frame(HEAD, PAYLOAD, block=7), PAYLOAD), "unknown block 7, there are 1"),
        (tuple(frame([3, PAGES])), f"page index {PAGES} outside its block of {PAGES} pages"),
        ((LONG_HEAD, LONG_PAYLOAD), "frame too long: 285 + 69632 bytes"),
        (
            (forge_frame(HEAD, PAYLOAD + b"x"), PAYLOAD + b"x"),
            "declares 90 + 8192 bytes, has 90 + 8193",
        ),
        ((forge_frame(HEAD, PAYLOAD, version=2), PAYLOAD), "wrong version 2 of a frame"),
        ((forge_frame(HEAD, PAYLOAD, seq=2**40), PAYLOAD), "outside the window"),
        ((forge_frame(HEAD, PAYLOAD, seq=0), PAYLOAD), "seq 0 "),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_frame_that_is_refused(folder: Path, parts: tuple[bytes, ...], reason: str) -> None:
    """A write outside the block, or an allocation by a length that the peer chose."""
    assert reason in refusal(folder, send_frame(*parts))


@pytest.mark.parametrize(
    ("parts", "seq", "reason"),
    [
        ((HEAD, PAYLOAD + b"x"), 1, "wrong digest"),
        ((HEAD,), 1, "1 parts, a batch has 2"),
        ((HEAD, PAYLOAD, b""), 1, "3 parts, a batch has 2"),
        ((b"", b""), 0, "0 bytes, a header has 64"),
    ],
)
def test_a_damaged_frame_is_asked_for_again(
    folder: Path, parts: tuple[bytes, ...], seq: int, reason: str
) -> None:
    """A bit that flipped on the way and ends the migration."""
    there = Destination(settings(to=folder / "target"), folder)
    with FakeSource(there.uri) as source:
        source.send(HELLO)
        send_frame(*parts)(source)
        asked = source.expect(c.Redo)
        assert asked.seq == seq
        assert f"damaged frame: {reason}" in asked.reason
        source.send(c.Cancel(reason="enough", failed=False))
        assert there.result().status == "cancelled"


@pytest.mark.parametrize(
    ("attack", "reason"),
    [
        (lambda source: source.send(c.Commit()), "received Commit in stage"),
        (lambda source: source.send_raw(forge_envelope(b"\x80", number=9)), "malformed"),
        (
            lambda source: source.send_raw(forge_envelope(b"", number=2, version=9)),
            "control message of",
        ),
    ],
)
def test_a_control_message_that_is_refused(folder: Path, attack: Attack, reason: str) -> None:
    """A guest that is started by a commit out of turn; an exception nobody catches."""
    assert reason in refusal(folder, attack)


def after_welcome(*messages: c.AnyMessage) -> Attack:
    def attack(source: FakeSource) -> None:
        source.expect(c.Welcome)
        for message in messages:
            source.send(message)

    return attack


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([c.Holes(block=5, extents=b"")], "holes in unknown block 5"),
        ([c.Holes(block=0, extents=struct.pack("<QQ", 0, PAGES + 1))], "a hole outside its block"),
        ([c.Holes(block=0, extents=struct.pack("<QQ", 2**64 - 1, 2))], "a hole outside its block"),
        (
            [c.RoundStart(round_no=1, first_seq=1), c.Verify(last_seq=0, digests=[1])],
            "the ends do not agree on what was sent",
        ),
        ([c.RoundStart(round_no=2, first_seq=5)], "the fence was skipped"),
    ],
)
def test_a_lie_about_memory(folder: Path, messages: list[c.AnyMessage], reason: str) -> None:
    """A hole punched outside the block; a verification that a wrong digest passes; a round that
    begins while the last one is on its way."""
    assert reason in refusal(folder, after_welcome(*messages))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"kind": "teapot"}, "a guest of unknown kind 'teapot'"),
        ({"blocks": [c.BlockInfo("memory", 2**32 - 1)]}, "bytes of memory"),
        ({"blocks": [c.BlockInfo("a", 1), c.BlockInfo("b", 1)]}, "a file takes one block"),
    ],
)
def test_a_hello_that_is_refused(folder: Path, changes: dict[str, object], reason: str) -> None:
    """Memory, or workers, for a guest that can never arrive."""
    hello = msgspec.structs.replace(HELLO, **changes)
    assert reason in refusal(folder, lambda _: None, hello)


def test_the_exit_code(folder: Path) -> None:
    """A script that goes on as if the guest had arrived."""
    with listen(folder, config=settings(to=folder / "target")) as there:
        with FakeSource(there.uri) as source:
            source.greet()
            source.send_raw(forge_envelope(b"\x80", number=2))
            told = source.expect(c.Failed)
        assert there.code() == 1
        assert there.words.splitlines()[-1].endswith(told.reason)
        assert "Traceback" not in there.words
        assert_refused(there.result(), told.reason)


def ports(folder: Path) -> set[int]:
    """The TCP ports on which the commands of `folder` listen."""
    found = set()
    for process in processes_of(folder):
        with suppress(psutil.NoSuchProcess):
            connections = process.net_connections("tcp")
            found |= {one.laddr.port for one in connections if one.status == psutil.CONN_LISTEN}
    return found


def disturb(port: int) -> None:
    """Say things at a port that no honest peer says there."""
    with socket.create_connection(("127.0.0.1", port), 5) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\n\r\n" + bytes(4096))
    with zmq.Context() as context, context.socket(zmq.DEALER) as stranger:
        stranger.linger = 100
        stranger.connect(f"tcp://127.0.0.1:{port}")
        hello = Channel(OTHER_SESSION).outgoing(HELLO)
        for parts in ([b""], [b"garbage"] * 3, [hello], [HEAD, PAYLOAD], [bytes(1 << 21)]):
            stranger.send_multipart(parts)


def test_strangers_do_not_disturb(folder: Path) -> None:
    """A port scanner that ends a migration, or a second source that joins it."""
    disturbed: set[int] = set()
    config = Config.model_validate(settings(parameters={"max-bandwidth": "5MiB"}))

    def look() -> None:
        if time.monotonic() > began + 1.0:
            for port in ports(folder) - disturbed:
                disturbed.add(port)
                disturb(port)

    with listen(folder) as there:
        uri, began = there.uri, time.monotonic()
        here = migrate(config, uri, nobody, watch=look)
        assert here.error_desc is None
        assert there.code() == 0, there.words
        assert there.result().self_check == "clean"
    assert len(disturbed) >= 3, "one control and two data endpoints"


def test_a_second_source_fails_at_once(folder: Path) -> None:
    """A source that waits until it believes that nobody is there; a first one that is disturbed."""
    second: list[Result] = []
    config = Config.model_validate(settings())

    def look() -> None:
        if not second and time.monotonic() > began + 1.0:
            second.append(migrate(config, uri, nobody))

    with listen(folder) as there:
        slow = Config.model_validate(settings(parameters={"max-bandwidth": "5MiB"}))
        uri, began = there.uri, time.monotonic()
        here = migrate(slow, uri, nobody, watch=look)
        assert here.error_desc is None
        assert there.code() == 0, there.words
    [refused] = second
    assert refused.error_desc == "the destination failed: it is busy with another migration"
    assert refused.guest_alive == "source"
    assert refused.total_time is not None
    assert refused.total_time < 2000


def test_strangers_before_the_source(folder: Path) -> None:
    """Garbage taken for the one source that is waited for."""
    there = Destination(settings(), folder)
    with zmq.Context() as context, context.socket(zmq.DEALER) as stranger:
        stranger.linger = 1000
        stranger.connect(there.uri.endpoint)
        for parts in ([b""], [b"garbage" * 20], [b"a", b"b", b"c"]):
            stranger.send_multipart(parts)
        assert stranger.poll(5000), "the stranger is not told"
        here = migrate(Config.model_validate(settings()), there.uri, nobody)
    assert here.error_desc is None
    assert there.result().self_check == "clean"
