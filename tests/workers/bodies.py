"""What the workers of these tests do; looked up by the fork server's children by name."""

import fcntl
import os
import signal
from dataclasses import dataclass
from typing import Any

from protocol import errors
from workers.link import PoolAddress, PoolLink, work
from workers.live import LiveSettings
from workers.memory import PassedFd
from workers.messages import Checked, FromWorker, Grant, ReadBack, ScanJob, Stop, Up

NOW_NS = 10**12
"""The time at which all draws are made, so that the debt is what was drawn."""


def obedient(address: PoolAddress) -> None:
    """Tells its pid, answers every grant with its slots, stops when told."""
    work(address, _obey)


def _obey(_: Any, link: PoolLink) -> None:  # noqa: ANN401
    link.send(Up(str(os.getpid())))
    while not isinstance(message := _next(link), Stop):
        assert isinstance(message, Grant)
        link.send(Checked(sum(message.slots), b""))


def _next(link: PoolLink) -> object:
    while (message := link.maybe_receive()) is None:
        link.wait_for_message()
    return message


@dataclass(frozen=True)
class Failing:
    """A worker that fails with this error, at once or at its first grant."""

    address: PoolAddress
    kind: str
    reason: str
    at_once: bool


def failing(settings: Failing) -> None:
    """Fails as the settings say."""
    work(settings.address, lambda _, link: _fail(settings, link))


def _fail(settings: Failing, link: PoolLink) -> None:
    if not settings.at_once:
        link.send(Up(str(os.getpid())))
        _next(link)
    builtin = {"OSError": OSError, "ValueError": ValueError}
    kind: type[Exception] = builtin.get(settings.kind) or getattr(errors, settings.kind)
    raise kind(settings.reason)


def deaf(address: PoolAddress) -> None:
    """Comes up and then hears nothing, not even a polite signal."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    work(address, _ignore)


def _ignore(_: Any, link: PoolLink) -> None:  # noqa: ANN401
    link.send(Up(str(os.getpid())))
    while True:
        signal.pause()


def never_up(address: PoolAddress) -> None:
    """Hears everything and says nothing."""
    work(address, lambda _, link: _listen(link))


def _listen(link: PoolLink) -> None:
    while not isinstance(_next(link), Stop):
        pass


@dataclass(frozen=True)
class WithFile:
    """A worker that is passed a descriptor."""

    address: PoolAddress
    passed: PassedFd


def writing(settings: WithFile) -> None:
    """Writes its pid to the file that it was passed."""
    work(settings.address, lambda _, link: _write(settings.passed.fd, link))


def _write(fd: int, link: PoolLink) -> None:
    os.pwrite(fd, str(os.getpid()).encode(), 0)
    link.send(Up(str(os.getpid())))
    _next(link)


def drawing(settings: WithFile) -> None:
    """Draws on a bucket: ReadBack takes its lock and keeps it, ScanJob draws `count` frames."""
    work(settings.address, lambda _, link: _draw(settings.passed.fd, link))


def _draw(fd: int, link: PoolLink) -> None:
    live = LiveSettings(fd)
    link.send(Up(str(os.getpid())))
    while not isinstance(message := _next(link), Stop):
        link.send(_drawn(fd, live, message))


def _drawn(fd: int, live: LiveSettings, message: object) -> FromWorker:
    match message:
        case ReadBack():
            fcntl.lockf(fd, fcntl.LOCK_EX)
        case ScanJob(first=frame_bytes, count=count):
            for _ in range(count):
                live.draw(frame_bytes, NOW_NS)
    return Checked(0, b"")
