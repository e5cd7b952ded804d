"""Work that other threads have for the thread that owns the migration.

Only that one touches engine and guest; others put work here and wait for what comes of it.
"""

import os
import select
from collections.abc import Callable
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from threading import Lock
from typing import Any

from protocol.qmp import QmpError

_OVER = "the command is about to end"


class Inbox:
    """Owned by the thread that calls `serve`; `put` may be called by any."""

    def __init__(self) -> None:
        self._work: SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = SimpleQueue()
        self.fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._closed = False
        self._closing = Lock()
        """Held while `fd` is used by another thread, or closed."""

    def put(self, work: Callable[[], Any]) -> "Future[Any]":
        """Have `work` done; its result, or its exception."""
        future: Future[Any] = Future()
        self._work.put((work, future))
        with self._closing:
            if not self._closed:
                os.eventfd_write(self.fd, 1)
                return future
        self._refuse()
        return future

    def wait(self, timeout_s: float) -> None:
        """Do what comes next, as soon as it comes."""
        if select.select([self.fd], [], [], timeout_s)[0]:
            os.eventfd_read(self.fd)
        self.serve()

    def serve(self) -> None:
        """Do all that waits."""
        while (waiting := self._maybe_next()) is not None:
            work, future = waiting
            try:
                future.set_result(work())
            except Exception as error:
                future.set_exception(error)

    def _maybe_next(self) -> tuple[Callable[[], Any], "Future[Any]"] | None:
        try:
            return self._work.get_nowait()
        except Empty:
            return None

    def _refuse(self) -> None:
        while (waiting := self._maybe_next()) is not None:
            waiting[1].set_exception(QmpError(_OVER))

    def close(self) -> None:
        """Refuse what waits and what comes. Idempotent."""
        with self._closing:
            if self._closed:
                return
            self._closed = True
            os.close(self.fd)
        self._refuse()
