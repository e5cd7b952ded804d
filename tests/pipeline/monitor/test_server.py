"""The QMP server: any client, any bytes, any number of them; an answer each, and no crash."""

import stat
from pathlib import Path
from random import Random

import pytest
from msgspec import Struct

from pipeline.monitor.server import MAX_CLIENTS, UNREAD_BYTES
from protocol.errors import ConfigError, GuestError
from tests.pipeline.monitor.talking import Client, served

LINES = 10_000
GOOD = [
    b'{"execute": "query-version"}',
    b'{"execute": "query-commands", "id": 7}',
    b'{"execute": "migrate", "arguments": {"uri": "tcp:127.0.0.1:1", "detach": true}}',
    b'{"execute": "set", "arguments": {"value": -1.5e3, "list": [1, {"a": "\\u00e4"}]}}',
]


class Value(Struct):
    """One argument."""

    value: int


@pytest.fixture(name="path")
def _path(folder: Path) -> Path:
    return folder / "qmp"


def test_a_client_is_greeted_and_negotiates_first(path: Path) -> None:
    """A client of QEMU's that does not understand us; commands before it said what it can."""
    with served(path), Client(path, negotiate=False) as client:
        assert client.greeting["QMP"]["capabilities"] == []
        assert set(client.greeting["QMP"]["version"]) == {"qemu", "package"}
        early = client.try_to("query-version")["error"]
        assert early["class"] == "CommandNotFound"
        assert "qmp_capabilities" in early["desc"]
        assert client.ask("qmp_capabilities", enable=[]) == {}
        assert client.try_to("qmp_capabilities")["error"]["class"] == "CommandNotFound"
        assert client.ask("query-version")["qemu"]["major"] == 2


def test_commands_are_done_in_order_and_their_errors_told(path: Path) -> None:
    """An answer to another question; an error that ends the server, or tells nothing."""

    def refuse() -> None:
        raise GuestError("the guest is asleep")

    def stumble() -> None:
        raise ZeroDivisionError

    with served(path) as monitor, Client(path) as client:
        done: list[int] = []
        monitor.commands.add_with("note", Value, lambda given: done.append(given.value))
        monitor.commands.add("refuse", refuse)
        monitor.commands.add("stumble", stumble)
        request = b'{"execute": "note", "arguments": {"value": %d}, "id": %d}'
        client.say(b"".join(request % (number, number) for number in range(100)))
        assert [client.answer()["id"] for _ in range(100)] == list(range(100)) == done
        assert client.error("refuse") == "the guest is asleep"
        assert "ZeroDivisionError" in client.error("stumble")
        assert client.try_to("nonsense")["error"]["class"] == "CommandNotFound"
        assert client.error("note", value="x").startswith("wrong arguments")
        assert {"name": "note"} in client.ask("query-commands")


def test_the_socket_is_its_owners_alone_and_goes_with_the_server(path: Path) -> None:
    """Anybody on the machine who drives the migration."""
    with served(path):
        assert stat.S_IMODE(path.lstat().st_mode) == 0o600
        with pytest.raises(ConfigError, match="somebody does"), served(path):
            pass
    assert not path.exists()


def test_a_place_that_is_taken_is_the_users_mistake(path: Path) -> None:
    """A file that is removed because a socket was to be there."""
    path.write_text("precious")
    with pytest.raises(ConfigError, match="--qmp"), served(path):
        pass
    assert path.read_text() == "precious"
    path.unlink()
    with pytest.raises(ConfigError, match="longer"), served(path.parent / ("x" * 120)):
        pass


def test_events_come_to_all_that_have_negotiated(path: Path) -> None:
    """An event that only one hears; or one in the middle of a handshake."""
    with (
        served(path) as monitor,
        Client(path) as one,
        Client(path) as two,
        Client(path, negotiate=False) as fresh,
    ):
        monitor.emit("STOP")
        monitor.emit("MIGRATION", status="active")
        for client in (one, two):
            assert client.wait_for("MIGRATION")["data"] == {"status": "active"}
        assert "return" in fresh.try_to("qmp_capabilities")


def test_a_client_that_does_not_read_is_dropped_and_the_others_are_not(path: Path) -> None:
    """Memory that grows with every event that somebody leaves unread."""
    with served(path) as monitor, Client(path) as deaf, Client(path) as other:
        for _ in range(4 * UNREAD_BYTES // 1000):
            monitor.emit("NOISE", text="x" * 1000)
            other.wait_for("NOISE")
        assert deaf.has_ended()
        assert other.ask("query-version")


def test_there_is_an_end_to_the_clients(path: Path) -> None:
    """A server that runs out of descriptors, and the migration with it."""
    with served(path):
        clients = [Client(path) for _ in range(MAX_CLIENTS)]
        with Client(path, negotiate=False) as extra:
            assert extra.greeting == {}
        for client in clients:
            client.__exit__()
        with Client(path) as again:
            assert again.ask("query-version")


def mutated(random: Random) -> bytes:
    """A request, on one line, some of whose bytes are lost, or others."""
    line = bytearray(random.choice(GOOD))
    for _ in range(random.randint(1, 6)):
        at = random.randrange(len(line))
        line[at : at + random.randrange(3)] = random.randbytes(random.randrange(2))
    cut = bytes(line[: random.randint(1, 200)])
    return b"x" + cut.replace(b"\n", b"?") if random.random() < 0.2 else cut.replace(b"\n", b"?")


def test_ten_thousand_bad_lines_have_an_answer_each(path: Path) -> None:
    """A line, or a cut in one, after which nobody is answered any more."""
    random = Random(1)
    with served(path), Client(path) as client:
        for _ in range(LINES // 100):
            lines = [line for _ in range(100) if (line := mutated(random)).strip()]
            data = b"".join(line + b"\n" for line in lines)
            while data:
                size = random.randint(1, 3000)
                client.say(data[:size])
                data = data[size:]
            client.say(b'{"execute": "query-version", "id": "last"}\n')
            answers = 0
            while (answer := client.answer()).get("id") != "last":
                answers += "error" in answer or "return" in answer
            assert answers >= len(lines)
