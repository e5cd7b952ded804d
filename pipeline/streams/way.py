"""The way to the other end: an address, or a byte stream and the process that stands for it here.

One row a scheme and end; an end is given an address of this machine in any case.
"""

import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from time import monotonic

import structlog

from pipeline.streams.ends import take_over
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

    def close(
        self,
        meanwhile: Callable[[], object] = lambda: None,
        is_enough: Callable[[], bool] = lambda: False,
    ) -> None:
        """Let the last word leave, then end it. Idempotent.

        `meanwhile` is called while that is waited for. A command that has the guest ends by
        itself, however long that takes, until `is_enough`.
        """
        if self._stand_in is None:
            return
        self._stand_in.end()
        if not (self.completed and self.uri.scheme == "exec"):
            self._ends(END_SECONDS, meanwhile)
        elif not self._ends(COMMAND_SECONDS, meanwhile, is_enough):
            structlog.get_logger().warning(f"the command of {self.uri} runs on")
        self._stand_in.close()
        self._stand_in = None

    def _ends(
        self,
        seconds: float,
        meanwhile: Callable[[], object],
        is_enough: Callable[[], bool] = lambda: False,
    ) -> bool:
        """Whether the stand-in ends by itself, in time."""
        assert self._stand_in is not None
        deadline = monotonic() + seconds
        while not self._stand_in.has_ended(LOOK_SECONDS):
            meanwhile()
            if is_enough() or monotonic() > deadline:
                return False
        return True


def way_to(uri: Uri, role: Role) -> "closing[Way]":
    """The way of the end `role`, while this lasts; ConfigError for one that cannot be had.

    Where it names a descriptor, before the fork server is started: that takes some for itself.
    """
    make = _STAND_INS.get((uri.scheme, role))
    return closing(Way(uri, None if make is None else make(uri, role)))


def _tunnel(uri: Uri, role: Role) -> StandIn:
    ends = take_over(uri.fd) if uri.scheme == "fd" else ()

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
