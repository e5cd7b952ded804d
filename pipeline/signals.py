"""SIGINT, SIGTERM and SIGHUP ask for an end: an exception before the engine runs, then a flag
that it sees at its next tick."""

import ctypes
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import current_thread, main_thread

_PR_SET_PDEATHSIG = 1
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Flag:
    """What somebody asks for, from a thread or a signal's handler: it takes no lock, for which the
    handler of a second signal would wait for ever, in the middle of the first one's."""

    def __init__(self) -> None:
        self._is_set = False

    def is_set(self) -> bool:
        """Whether the flag is raised."""
        return self._is_set

    def set(self) -> None:
        """Raise the flag."""
        self._is_set = True

    def clear(self) -> None:
        """Lower the flag."""
        self._is_set = False


_interrupted = Flag()
"""Whether a signal was an exception: one in a finalizer or a callback of a weak reference goes no
further."""


@contextmanager
def cancelled_by_signals(cancel: Callable[[], None]) -> Iterator[None]:
    """While this lasts a signal calls `cancel`, and so does one that came before as an exception,
    and was lost where Python ignores these; outside the main thread nothing changes."""
    if current_thread() is not main_thread():
        yield
        return
    with _handled_by(lambda *_: cancel()):
        if _interrupted.is_set():
            cancel()
        yield


@contextmanager
def interrupted_once() -> Iterator[None]:
    """While this lasts the first signal is a KeyboardInterrupt; those after it change nothing,
    so that what has to be cleared up is."""
    with _handled_by(_interrupt):
        try:
            yield
        finally:
            _interrupted.clear()


@contextmanager
def _handled_by(handler: Callable[..., object]) -> Iterator[None]:
    """While this lasts; what is ignored, as SIGHUP is under nohup, stays so."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    heeded = [number for number in SIGNALS if before[number] is not signal.SIG_IGN]
    try:
        for number in heeded:
            signal.signal(number, handler)
        yield
    finally:
        for number in heeded:
            signal.signal(number, before[number])


def _interrupt(*_: object) -> None:
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda *_: None)  # no SIG_IGN: children would inherit it
    _interrupted.set()
    raise KeyboardInterrupt


def end_with(parent: int) -> None:
    """In a child: be told by SIGTERM when the thread that started it has ended.

    Before exec that ends it: a handler that was inherited would hear it, and be forgotten.
    """
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)
