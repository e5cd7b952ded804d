"""The way to the other end: an address, or a byte stream and the process that stands for it here.

One row a scheme and end; an end is given an address of this machine in any case.
"""

import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from threading import Event
from time import monotonic

import structlog

from pipeline.signals import cancelled_by_signals
from pipeline.streams.ends import claim
from pipeline.streams.player import PlayerSettings, player
from pipeline.streams.saved import check_place, open_saved
from pipeline.streams.saver import SaverSettings, saver
from pipeline.streams.stand_in import StandIn
from pipeline.streams.tunnel import TunnelSettings, tunnel
from protocol.session import Role
from protocol.uri import Uri
from workers.memory import PassedFd

SOCKET = "way"
LOOK_SECONDS = 0.05
END_SECONDS = 8.0
"""For a tunnel to end its command, which may take 5.5 s."""
COMMAND_SECONDS = 120.0
"""For a command behind which the guest has arrived to end by itself, with the guest's check."""


class Way:
    """How one migration reaches the other end: at `uri`. `completed` is its owner's to set."""

    def __init__(self, uri: Uri, stand_in: StandIn | None = None) -> None:
        self.uri = uri if stand_in is None else uri.stands_at(str(stand_in.folder / SOCKET))
        self._stand_in = stand_in
        self.completed = False

    def check(self) -> None:
        """PeerLost, with the reason, where the way has ended."""
        if self._stand_in is not None:
            self._stand_in.check()

    def close(self) -> None:
        """Let the last word leave, then end it. Idempotent."""
        if self._stand_in is None:
            return
        self._stand_in.end()
        seen_off = self.completed and self.uri.scheme == "exec"
        if seen_off:
            _see_off(self._stand_in, self.uri)
        self._stand_in.close(0.0 if seen_off else END_SECONDS)
        self._stand_in = None


def way_to(uri: Uri, role: Role) -> "closing[Way]":
    """The way of the end `role`, while this lasts; ConfigError for one that cannot be had.

    Where it names a descriptor, before the fork server is started: that takes some for itself.
    """
    make = _STAND_INS.get((uri.scheme, role))
    return closing(Way(uri, None if make is None else make(uri, role)))


def _see_off(stand_in: StandIn, uri: Uri) -> None:
    """Wait for the command, which has the guest: it is never ended from here."""
    impatient, deadline = Event(), monotonic() + COMMAND_SECONDS
    with cancelled_by_signals(impatient.set):
        while not stand_in.has_ended(LOOK_SECONDS):
            if impatient.is_set() or monotonic() > deadline:
                structlog.get_logger().warning(f"the command of {uri} runs on")
                return


def _tunnel(uri: Uri, role: Role) -> StandIn:
    ends = claim(uri.fd) if uri.scheme == "fd" else ()

    def settings(folder: Path, leash: PassedFd) -> TunnelSettings:
        here = uri.stands_at(str(folder / SOCKET))
        return TunnelSettings(folder, leash, here, role == "source", tuple(map(PassedFd, ends)))

    try:
        return StandIn(f"the tunnel of {uri}", tunnel, settings)
    finally:
        for fd in ends:
            os.close(fd)


def _saver(uri: Uri, role: Role) -> StandIn:
    check_place(Path(uri.path))

    def settings(folder: Path, leash: PassedFd) -> SaverSettings:
        return SaverSettings(folder, leash, uri.stands_at(str(folder / SOCKET)))

    return StandIn(f"the saver of {uri}", saver, settings)


def _player(uri: Uri, role: Role) -> StandIn:
    file = open_saved(Path(uri.path))

    def settings(folder: Path, leash: PassedFd) -> PlayerSettings:
        return PlayerSettings(folder, leash, uri.stands_at(str(folder / SOCKET)), PassedFd(file))

    try:
        return StandIn(f"the player of {uri}", player, settings)
    finally:
        os.close(file)


_STAND_INS: dict[tuple[str, Role], Callable[[Uri, Role], StandIn]] = {
    ("exec", "source"): _tunnel,
    ("exec", "destination"): _tunnel,
    ("fd", "source"): _tunnel,
    ("fd", "destination"): _tunnel,
    ("file", "source"): _saver,
    ("file", "destination"): _player,
}
