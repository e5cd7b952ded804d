"""Migrations over encrypted links, and what becomes of those who may not take part."""

import os
import re
import socket
import stat
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest
import zmq

from pipeline.config.keys import make_keys
from pipeline.config.model import Config
from pipeline.result import Result
from tests.faults.test_hostile_source import ports
from tests.leaks import processes_of
from tests.system.migrations import Command, listen, migrate, nobody, settings
from workers.keys import ClientKeys, KeyPair, secure_client

pytestmark = pytest.mark.more

Keys = dict[str, Path]
HANDSHAKE_S = 5.0


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    """A pair for the source, the destination, and somebody else."""
    made = {name: tmp_path / name for name in ("source", "destination", "other")}
    for path in made.values():
        make_keys(path)
    return made


def security(own: Path, *peers: Path) -> dict[str, Any]:
    return {"keys": str(own), "peers": [str(path / "pageferry.key") for path in peers]}


def send(to: Command, **changes: Any) -> Result:  # noqa: ANN401 - as YAML
    return migrate(Config.model_validate(settings(**changes)), to.uri, nobody)


def waiting(folder: Path, keys: Keys) -> Command:
    theirs = security(keys["destination"], keys["source"])
    return listen(folder, config=settings(security=theirs))


def test_with_keys(folder: Path, keys: Keys) -> None:
    """Keys with which nothing arrives."""
    with waiting(folder, keys) as there:
        here = send(there, security=security(keys["source"], keys["destination"]))
        assert here.error_desc is None
        assert there.code() == 0, there.words
        assert there.result().self_check == "clean"
        assert "turned away" not in there.words


@pytest.mark.parametrize(
    ("own", "peer", "reason", "told"),
    [
        ("other", "destination", "is not in its security.peers", "is not in security.peers"),
        ("source", "other", "is the key in security.peers its own?", "expects another public key"),
        (None, None, "it has keys, this end has none", "only one of the two ends"),
    ],
)
def test_a_source_that_is_not_let_in(
    folder: Path, keys: Keys, own: str | None, peer: str | None, reason: str, told: str
) -> None:
    """A stranger's guest taken in; a source that waits for ever, or does not know why it failed;
    a destination that is lost to its own source by that."""
    wrong = security(keys[own], keys[peer]) if own and peer else {}
    with waiting(folder, keys) as there:
        here = send(there, security=wrong)
        assert (here.status, here.guest_alive) == ("failed", "source")
        assert here.error_desc is not None
        assert reason in here.error_desc
        there.wait_for(told)
        assert re.search(r"a connection from 127\.0\.0\.1(:\d+)? was turned away", there.words)
        again = send(there, security=security(keys["source"], keys["destination"]))
        assert again.error_desc is None
        assert there.code() == 0, there.words


def test_a_destination_without_keys(folder: Path, keys: Keys) -> None:
    """Memory sent in plain text by a source that has keys."""
    with listen(folder) as there:
        here = send(there, security=security(keys["source"], keys["destination"]))
        assert here.error_desc is not None
        assert "it has no keys, this end has some" in here.error_desc
        there.process.terminate()
        assert there.code() == 130


class Strangers:
    """At every port of a destination: one without a key, one with a key that is not listed, one
    that says nothing."""

    def __init__(self, stack: ExitStack, keys: Keys) -> None:
        self._stack = stack
        self._context = stack.enter_context(zmq.Context())
        text = (keys["destination"] / "pageferry.key").read_text()
        self._server = text.split('"')[1].encode()
        self.silent: dict[int, socket.socket] = {}

    def visit(self, port: int) -> None:
        """Knock three times, and see that only encrypted connections are offered."""
        assert mechanism(port) == b"CURVE"
        host = f"127.0.0.{2 + len(self.silent)}"
        plain = socket.create_connection(("127.0.0.1", port), 5, (host, 0))
        self.silent[port] = self._stack.enter_context(plain)
        own = KeyPair(*zmq.curve_keypair())
        for keys in (None, ClientKeys(own, self._server)):
            stranger = self._stack.enter_context(self._context.socket(zmq.DEALER))
            stranger.linger = 0
            secure_client(stranger, keys)
            stranger.connect(f"tcp://127.0.0.1:{port}")
            stranger.send(b"hello")


def mechanism(port: int) -> bytes:
    """What the greeting of ZMTP 3 says of the connections that a port takes."""
    with socket.create_connection(("127.0.0.1", port), 5) as plain:
        plain.sendall(b"\xff" + bytes(8) + b"\x7f\x03")
        greeting = b""
        while len(greeting) < 64:
            greeting += plain.recv(64)
    return greeting[12:32].rstrip(b"\0")


def are_dropped(silent: list[socket.socket]) -> bool:
    """Whether the other end has ended these connections, in two seconds at most."""
    for one in silent:
        one.settimeout(2)
        while one.recv(100):
            pass
    return True


def test_strangers_do_not_disturb(folder: Path, keys: Keys) -> None:
    """A migration that ends by somebody who has no key; connections that are held for ever."""
    with ExitStack() as stack, waiting(folder, keys) as there:
        strangers = Strangers(stack, keys)
        assert there.uri
        began = time.monotonic()

        def look() -> None:
            if len(strangers.silent) < 3 and time.monotonic() > began + 1:
                for port in ports(folder) - set(strangers.silent):
                    strangers.visit(port)

        slow = settings(
            guest={"kind": "synthetic", "memory": "16MiB", "workload": {"pattern": "idle"}},
            parameters={"max-bandwidth": "600KiB", "downtime-limit": 2000},
            security=security(keys["source"], keys["destination"]),
        )
        here = migrate(Config.model_validate(slow), there.uri, nobody, watch=look)
        lasted = time.monotonic() - began
        assert here.error_desc is None
        assert here.redone == 0
        assert len(strangers.silent) == 3, "one control and two data ports"
        assert there.code() == 0, there.words
        words, silent = there.words, [s.getsockname() for s in strangers.silent.values()]
        assert are_dropped(list(strangers.silent.values()))
    assert lasted > HANDSHAKE_S + 1, "too short to see who says nothing"
    assert "127.0.0.1 was turned away: its public key" in words
    assert re.search(r"127\.0\.0\.1:\d+ was turned away: .*only one of the two ends", words)
    for host, port in silent:
        assert f"{host}:{port} was turned away: no handshake within 5 s" in words, words


def test_what_lies_on_disk_and_in_memory_is_private(folder: Path) -> None:
    """A socket, a folder or a memory file of a running migration that another user may open."""
    before, seen = os.umask(0), 0
    try:
        config = settings(to=folder / "target", parameters={"max-bandwidth": "4MiB"})
        with Command(folder, "run", "--quiet", config=config) as both:
            until = time.monotonic() + 10
            while both.process.poll() is None and time.monotonic() < until:
                seen += assert_private(folder)
                time.sleep(0.2)
            assert both.code() == 0, both.words
    finally:
        os.umask(before)
        (folder / "target").unlink(missing_ok=True)
    assert seen > 10


def assert_private(folder: Path) -> int:
    """How many sockets, folders and memory files were looked at."""
    seen = 0
    for path in folder.rglob("*"):
        try:
            mode = path.lstat().st_mode
        except FileNotFoundError:
            continue
        if stat.S_ISDIR(mode) or (stat.S_ISSOCK(mode) and path.parent == folder):
            assert not mode & 0o077, f"{path} has mode {mode:o}"
            seen += 1
    return seen + sum(map(private_memory, processes_of(folder)))


def private_memory(process: psutil.Process) -> int:
    """How many memory files of a process were looked at."""
    seen = 0
    for fd in Path(f"/proc/{process.pid}/fd").glob("*"):
        try:
            if "/memfd:pageferry" in str(fd.readlink()):
                assert not fd.stat().st_mode & 0o077, fd.readlink()
                seen += 1
        except OSError:
            continue
    return seen


def test_a_unix_socket_is_for_its_owner(folder: Path) -> None:
    """Another user of this machine as the source, where the folder is open to all."""
    before = os.umask(0)
    try:
        uri = f"unix:{folder}/control"
        with Command(folder, "incoming", "--uri", uri) as there:
            assert there.uri.path == f"{folder}/control"
            assert not (folder / "control").stat().st_mode & 0o077
            there.process.terminate()
            there.code()
    finally:
        os.umask(before)
