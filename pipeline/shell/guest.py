"""`pageferry guest`: a synthetic guest with a life of its own, on a UNIX socket."""

import signal
from pathlib import Path

import structlog

from pipeline.config.model import Config, SyntheticGuest
from pipeline.guests import wire
from pipeline.guests.host import GuestHost
from pipeline.guests.machine import Machine
from pipeline.guests.workload import Workload
from pipeline.signals import SIGNALS
from protocol.errors import ConfigError


def be_guest(config: Config, socket: Path, *, incoming: bool) -> None:
    """Be the guest of `config` at `socket` until a signal comes; `incoming`: wait to be filled.

    ConfigError where `config` describes another kind of guest, or the socket cannot be had.
    """
    guest = config.guest
    if not isinstance(guest, SyntheticGuest) or guest.socket is not None:
        raise ConfigError(
            f"guest: found one of kind {guest.kind}, expected a synthetic one to be started here"
        )
    workload = None if incoming else Workload(**guest.workload.model_dump())
    start = wire.Start(guest.memory, workload, None)
    host = GuestHost(socket, lambda: Machine(start))
    try:
        for number in SIGNALS:
            signal.signal(number, lambda *_: host.end())
        structlog.get_logger().info(f"the guest is {host.state}", socket=str(socket))
        host.serve()
    finally:
        host.close()
