"""What a guest says on its serial port, with the time of each line.

Both guests of these tests say "up", "t COUNTER" at each heartbeat, and "bad WHAT" when memory is
not what they had put there.
"""

import os
import time
from collections.abc import Callable
from threading import Condition, Thread
from typing import IO, NamedTuple


class Line(NamedTuple):
    """A line, and when it was whole (`time.monotonic`)."""

    at: float
    text: str

    @property
    def counter(self) -> int | None:
        """What a heartbeat counts; None for another line."""
        match self.text.split():
            case ["t", digits, *_]:
                return int(digits, 16)
        return None


class Serial(Thread):
    """Reads one machine's port until it closes; `beats` and `bad` are what was heard by now."""

    def __init__(self, port: IO[bytes]) -> None:
        super().__init__(daemon=True)
        self._port = port
        self._heard = Condition()
        self._ended = False
        self._rest = b""
        self.lines: list[Line] = []
        self.beats: list[Line] = []
        self.bad: list[str] = []
        self.is_up = False
        self.start()

    def run(self) -> None:
        """Take what comes."""
        while data := os.read(self._port.fileno(), 1 << 16):
            now = time.monotonic()
            *whole, self._rest = (self._rest + data).split(b"\n")
            with self._heard:
                for text in whole:
                    self._take(Line(now, text.decode(errors="replace").rstrip("\r")))
                self._heard.notify_all()
        with self._heard:
            self._ended = True
            self._heard.notify_all()

    def _take(self, line: Line) -> None:
        self.lines.append(line)
        if line.counter is not None:
            self.beats.append(line)
        elif line.text.startswith("bad "):
            self.bad.append(line.text.removeprefix("bad "))
        elif line.text.split()[:1] == ["up"]:
            self.is_up = True

    @property
    def counter(self) -> int:
        """The newest heartbeat's; -1 before the first one."""
        newest = self.beats[-1].counter if self.beats else None
        return -1 if newest is None else newest

    def wait(self, what: str, heard: Callable[[], bool], within_s: float) -> None:
        """Until `heard`; AssertionError, with the last lines, when it is not in time."""
        with self._heard:
            self._heard.wait_for(lambda: heard() or self._ended, within_s)
            last = [line.text for line in self.lines[-20:]]
            assert heard(), f"no {what} within {within_s:g} s, but {last}"

    def close(self) -> None:
        """Read to the end, which has to be near."""
        self.join()
        self._port.close()

    def gap(self, there: "Serial") -> tuple[float, int]:
        """From the last heartbeat here to the first one there: seconds, and what was counted.

        A guest that goes on there counts 1. It may have been stopped in the middle of a line.
        """
        first, *others = there.lines
        mended = first._replace(text=self._rest.decode() + first.text)
        heard = [(line.at, line.counter) for line in (mended, *others)]
        at, counter = next((at, counter) for at, counter in heard if counter is not None)
        return at - self.beats[-1].at, counter - self.counter
