"""What a batch decides and sees, a line of JSON each, while it runs."""

import os
from time import time
from typing import TYPE_CHECKING

import msgspec
import structlog

from pipeline.batch.summary import Summary
from pipeline.result import write_out

if TYPE_CHECKING:
    from pipeline.cluster.conductor import Conductor


class EventLines:
    """Behind what is in the file `path` already; "-" is standard output. A file that takes no more
    is told once, and left: the batch goes on."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._began_s = time()
        self._told = 0
        self._is_left = False

    def __call__(self, conductor: "Conductor", found: Summary) -> None:
        """All events since the last call, and how far all is."""
        events = conductor.journal.events(self._told)
        told = [
            {"event": what, "at": at, "guest": move, "attempt": token, "detail": detail}
            for _, at, what, move, token, detail in events
            if at >= self._began_s
        ]
        self._told = events[-1][0] if events else self._told
        lines = [*told, _progress(found)]
        self._write("".join(f"{msgspec.json.encode(line).decode()}\n" for line in lines))

    def _write(self, lines: str) -> None:
        if self._is_left:
            return
        try:
            if self._path == "-":
                write_out(lines)
            else:
                with open(self._path, "a", opener=_at_once) as file:
                    file.write(lines)
        except OSError as error:
            self._is_left = True
            structlog.get_logger().warning(f"--events {self._path}: {error}; no more is written")


def _at_once(path: str, flags: int) -> int:
    """Without waiting for whoever reads it, where it is a pipe."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)


def _progress(found: Summary) -> dict[str, object]:
    running = {one.name: one.percent for one in found.moves if one.state == "running"}
    return {"event": "progress", "at": time(), "percent": found.percent,
            "counts": found.counts, "running": running}  # fmt: skip
