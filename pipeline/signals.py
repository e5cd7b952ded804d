"""SIGINT, SIGTERM and SIGHUP ask for an end: an exception before the engine runs, then a flag
that it sees at its next tick."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import current_thread, main_thread

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Flag:
    """What somebody asks for, from a thread or a signal's handler: it takes no lock, for which the
    handler of a second signal would wait for ever, in the middle of the first one's."""

    def __init__(self) -> None:
        self._is_set = False

    def is_set(self) -> bool:
        """Whether it is asked for."""
        return self._is_set

    def set(self) -> None:
        """Ask for it."""
        self._is_set = True

    def clear(self) -> None:
        """It is not asked for any more."""
        self._is_set = False


@contextmanager
def cancelled_by_signals(cancel: Callable[[], None]) -> Iterator[None]:
    """While this lasts a signal calls `cancel`; outside the main thread nothing changes."""
    if current_thread() is not main_thread():
        yield
        return
    before = [signal.signal(number, lambda *_: cancel()) for number in SIGNALS]
    try:
        yield
    finally:
        for number, handler in zip(SIGNALS, before, strict=True):
            signal.signal(number, handler)


@contextmanager
def interrupted_once() -> Iterator[None]:
    """While this lasts the first signal is a KeyboardInterrupt; those after it change nothing,
    so that what has to be cleared up is."""
    before = [signal.signal(number, _interrupt) for number in SIGNALS]
    try:
        yield
    finally:
        for number, handler in zip(SIGNALS, before, strict=True):
            signal.signal(number, handler)


def _interrupt(*_: object) -> None:
    for number in SIGNALS:
        signal.signal(number, lambda *_: None)  # no SIG_IGN: children would inherit it
    raise KeyboardInterrupt
