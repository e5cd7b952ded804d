"""SIGINT and SIGTERM ask for an end; the engine sees it at its next tick."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, current_thread, main_thread

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def cancelled_by_signals(cancel: Event) -> Iterator[None]:
    """While this lasts a signal sets `cancel`; outside the main thread nothing changes."""
    if current_thread() is not main_thread():
        yield
        return
    before = [signal.signal(number, lambda *_: cancel.set()) for number in SIGNALS]
    try:
        yield
    finally:
        for number, handler in zip(SIGNALS, before, strict=True):
            signal.signal(number, handler)
