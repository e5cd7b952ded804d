"""SIGINT and SIGTERM ask for an end, while it lasts, and are put back."""

import gc
import signal
from threading import Event, Thread

import pytest

from pipeline.signals import SIGNALS, cancelled_by_signals, interrupted_once
from tests.pipeline.guests.helpers import python


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_a_cancel_and_no_exception(number: signal.Signals) -> None:
    """An exception in the middle of anything, a guest that stays stopped."""
    cancel = Event()
    with cancelled_by_signals(cancel.set):
        assert not cancel.is_set()
        signal.raise_signal(number)
        assert cancel.is_set()
        signal.raise_signal(number)


def test_both_signals_are_heeded() -> None:
    """A service manager's SIGTERM that kills a migration in its switch-over."""
    assert set(SIGNALS) == {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}


@pytest.mark.parametrize("fails", [False, True])
def test_the_handlers_of_before_are_put_back(fails: bool) -> None:
    """A program that cannot be interrupted any more, once a migration is over."""
    before = [signal.getsignal(number) for number in SIGNALS]
    try:
        with cancelled_by_signals(Event().set):
            assert signal.getsignal(signal.SIGINT) is not before[0]
            if fails:
                raise ValueError
    except ValueError:
        assert fails
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_outside_the_main_thread_nothing_changes() -> None:
    """An error of Python's where a migration runs in a thread of somebody's program."""
    before = [signal.getsignal(number) for number in SIGNALS]
    seen: list[object] = []

    def migrate() -> None:
        with cancelled_by_signals(Event().set):
            seen.extend(signal.getsignal(number) for number in SIGNALS)

    thread = Thread(target=migrate)
    thread.start()
    thread.join()
    assert seen == before


def test_only_the_first_signal_interrupts() -> None:
    """A second Ctrl-C in the middle of clearing up: workers, sockets and a result lost."""
    before = [signal.getsignal(number) for number in SIGNALS]
    with interrupted_once():
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        for number in SIGNALS:
            signal.raise_signal(number)
    assert [signal.getsignal(number) for number in SIGNALS] == before


class Finalized:
    """Hears of a signal where an exception goes no further."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGTERM)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_exception_that_is_lost_is_a_cancel() -> None:
    """A command that nobody can end: its only interrupt came in a finalizer."""
    cancel = Event()
    with interrupted_once():
        Finalized()
        gc.collect()
        with cancelled_by_signals(cancel.set):
            assert cancel.is_set()
    again = Event()
    with interrupted_once(), cancelled_by_signals(again.set):
        assert not again.is_set()


STORM = """
import os, signal, threading
from pipeline.signals import Flag, cancelled_by_signals
cancel, sent = Flag(), threading.Event()
def storm():
    for _ in range(20_000):
        os.kill(os.getpid(), signal.SIGINT)
    sent.set()
with cancelled_by_signals(cancel.set):
    print("up", flush=True)
    threading.Thread(target=storm).start()
    while not sent.is_set():
        cancel.clear()
    os.kill(os.getpid(), signal.SIGINT)
    assert cancel.is_set()
"""


def test_signals_one_upon_the_other_hold_nobody_up() -> None:
    """A command that waits for its own lock for ever, when two signals come at once."""
    with python(STORM) as (command, _):
        assert command.wait(20) == 0
