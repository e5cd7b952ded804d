"""Just enough of QMP to drive one QEMU: commands with answers, and waiting for an event.

Synchronous, over a socket whose other end QEMU was started with: when QEMU dies the
socket ends, and nobody waits for it.
"""

import json
import socket
from collections import deque
from typing import Any

from benchmarks.running import RunError

ANSWER_SECONDS = 60


class QmpError(RunError):
    """QEMU refused a command, with its own reason."""


class Qmp:
    """A QMP session; `greet` comes first. It owns `sock` and closes it."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._stream = sock.makefile("rwb")
        self._events: deque[dict[str, Any]] = deque()

    def greet(self) -> None:
        """Take QEMU's greeting and begin the session."""
        self._read(ANSWER_SECONDS)
        self.execute("qmp_capabilities")

    def execute(self, command: str, arguments: dict[str, Any] | None = None) -> Any:  # noqa: ANN401
        """What QEMU answers; QmpError where it refuses."""
        request = {"execute": command, "arguments": arguments or {}}
        self._stream.write(json.dumps(request).encode() + b"\n")
        self._stream.flush()
        while "event" in (answer := self._read(ANSWER_SECONDS)):
            self._events.append(answer)
        if "error" in answer:
            raise QmpError(f"{command}: {answer['error']['desc']}")
        return answer["return"]

    def wait_migrated(self, seconds: float) -> str:
        """The status that the migration ended with; needs the capability `events`."""
        while True:
            event = self._events.popleft() if self._events else self._read(seconds)
            status = event.get("data", {}).get("status")
            if event.get("event") == "MIGRATION" and status in {"completed", "failed"}:
                return str(status)

    def close(self) -> None:
        """End the session."""
        self._stream.close()
        self._sock.close()

    def _read(self, seconds: float) -> dict[str, Any]:
        self._sock.settimeout(seconds)
        try:
            line = self._stream.readline()
        except (TimeoutError, ConnectionError) as error:
            raise RunError(f"QEMU did not answer: {error}") from error
        if not line:
            raise RunError("QEMU ended")
        message: dict[str, Any] = json.loads(line)
        return message
