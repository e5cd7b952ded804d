"""A client of our own monitor: one command after the other."""

import socket
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec

from protocol.errors import MigrationError

ANSWER_S = 5.0


class MonitorClient:
    """At the socket `path`; OSError where nobody listens, or answers in time."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(ANSWER_S)
        try:
            self._socket.connect(str(path))
        except OSError:
            self._socket.close()
            raise
        self._lines = self._socket.makefile("rb")

    def __enter__(self) -> "MonitorClient":
        self._lines.readline()
        self.execute("qmp_capabilities")
        return self

    def execute(self, command: str, arguments: dict[str, Any] | None = None) -> object:
        """What it answers; MigrationError for a refusal, or none."""
        asked: dict[str, Any] = {"execute": command}
        if arguments is not None:
            asked["arguments"] = arguments
        self._socket.sendall(msgspec.json.encode(asked) + b"\n")
        while line := self._lines.readline():
            answer = msgspec.json.decode(line, type=dict[str, Any])
            if "error" in answer:
                raise MigrationError(str(answer["error"].get("desc")))
            if "return" in answer:
                return answer["return"]
        raise MigrationError("the monitor has closed")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._lines.close()
        self._socket.close()
