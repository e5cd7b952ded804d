"""A QMP client that says what it likes, and a thread that does what is asked."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from types import TracebackType
from typing import Any

import msgspec

from pipeline.monitor.monitor import Monitor

PATIENCE_S = 5.0
Answer = Any
"""What a command returns is its own business."""


class Client:
    """One connection; its greeting is read, and, unless told otherwise, answered."""

    def __init__(self, path: Path, *, negotiate: bool = True) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(PATIENCE_S)
        try:
            self._socket.connect(str(path))
        except OSError:
            self._socket.close()
            raise
        self._lines = self._socket.makefile("rb")
        self.events: list[dict[str, Any]] = []
        self.greeting = self.read()
        if negotiate:
            assert self.ask("qmp_capabilities") == {}

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self._lines.close()
        self._socket.close()

    def say(self, data: bytes) -> None:
        """Send it as it is."""
        self._socket.sendall(data)

    def read(self) -> dict[str, Any]:
        """The next line; an empty dict at the end."""
        line = self._lines.readline()
        found: dict[str, Any] = msgspec.json.decode(line) if line else {}
        return found

    def answer(self) -> dict[str, Any]:
        """The next line that is no event; those go to `events`."""
        while "event" in (line := self.read()):
            self.events.append(line)
        return line

    def has_ended(self) -> bool:
        """Read all that is there; whether that is an end."""
        with suppress(ConnectionError):
            while self._lines.readline():
                pass
        return True

    def ask(self, execute: str, **arguments: object) -> Answer:
        """What a command returns; AssertionError for an error."""
        answer = self.try_to(execute, **arguments)
        assert "return" in answer, answer
        return answer["return"]

    def error(self, execute: str, **arguments: object) -> str:
        """How a command is refused."""
        answer = self.try_to(execute, **arguments)
        assert "error" in answer, answer
        return str(answer["error"]["desc"])

    def try_to(self, execute: str, **arguments: object) -> dict[str, Any]:
        """Whatever a command answers; dashes in names are written as underlines."""
        named = {name.replace("_", "-"): value for name, value in arguments.items()}
        self.say(msgspec.json.encode({"execute": execute, "arguments": named}) + b"\n")
        return self.answer()

    def wait_for(self, event: str, **data: object) -> dict[str, Any]:
        """The next event of that name with that data; those before it are forgotten."""
        while True:
            found = self.events.pop(0) if self.events else self.read()
            assert found, f"the connection ended before {event}"
            if found.get("event") == event and data.items() <= found["data"].items():
                return found


def listens(path: Path) -> bool:
    """Whether somebody can be reached there by now."""
    try:
        Client(path).__exit__()
    except OSError:
        return False
    return True


class Serving(Thread):
    """The owner of a monitor, who does nothing else."""

    def __init__(self, monitor: Monitor) -> None:
        super().__init__(daemon=True)
        self._monitor = monitor
        self._over = Event()

    def run(self) -> None:
        """Serve until the test is over."""
        while not self._over.is_set():
            self._monitor.inbox.wait(0.01)

    def __enter__(self) -> "Serving":
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._over.set()
        self.join()


@contextmanager
def served(path: Path) -> Iterator[Monitor]:
    """A monitor at `path` with the commands that every end has."""
    with Monitor(path) as monitor, Serving(monitor):
        monitor.listen()
        yield monitor
