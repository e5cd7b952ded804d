"""A tunnel: all connections of a migration as records over one stream of bytes, both ways.

Holds one record a way at most, so that a stream that is slow is felt by who sends, and waits in
a poll. Of what is said it knows where the destination's workers are, and whether a commit went
there: a command that may have the guest is never ended from here.
"""

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import zmq

from pipeline.streams.ends import Stream, of_command
from pipeline.streams.leash import Leash, LeashCut, stand
from pipeline.streams.sockets import LocalSockets
from protocol.channel import message_in
from protocol.control import Commit, Hello
from protocol.errors import PeerLost, RemoteProtocolError
from protocol.stream import Content, Kind, Record, RecordReader, encode_preamble, encode_record
from protocol.uri import Uri
from workers.memory import PassedFd

LINGER_MS = 500
QUIET_MS = 100
DRAIN_SECONDS = 1.0
"""For the last words to leave."""


@dataclass(frozen=True)
class TunnelSettings:
    """What a tunnel is started with; `ends` are to read and to write, none where a command is
    behind it. `binds`: at the source."""

    folder: Path
    leash: PassedFd
    uri: Uri
    binds: bool
    ends: tuple[PassedFd, ...]


def tunnel(settings: TunnelSettings) -> None:
    """The body of a tunnel process."""
    stand(settings.leash, settings.folder, lambda leash: _run(settings, leash))


def _run(settings: TunnelSettings, leash: Leash) -> None:
    if settings.ends:
        reads, writes = settings.ends
        stream = Stream(str(settings.uri), reads.fd, writes.fd)
    else:
        stream = of_command(settings.uri.command)
    try:
        _relay(settings, leash, stream)
    finally:
        stream.close_writing()
        if not stream.may_have_guest:
            stream.end_command()
        elif stream.command is not None and stream.command.poll() is None and not leash.is_orphan:
            see_off(stream.command.pid, leash)


def _relay(settings: TunnelSettings, leash: Leash, stream: Stream) -> None:
    """Relay until it is over; the command hears why before the stream's is waited for."""
    with zmq.Context() as context:
        relay = Tunnel(LocalSockets(context, settings.uri, binds=settings.binds), leash, stream)
        try:
            relay.run()
        except LeashCut:
            if not leash.is_orphan:
                relay.drain()
        except PeerLost as error:
            leash.say(str(error))
        except RemoteProtocolError as error:
            leash.say(f"{stream.name}: {error}")
        finally:
            context.destroy(linger=LINGER_MS)


def see_off(pid: int, leash: Leash) -> None:
    """Wait until a command that may have the guest ends by itself, or nobody waits for that."""
    ended = os.pidfd_open(pid)
    poller = zmq.Poller()
    for source in (ended, leash.socket.fileno()):
        poller.register(source, zmq.POLLIN)
    while ended not in dict(poller.poll()):
        with suppress(LeashCut):
            leash.check()
        if leash.is_orphan:
            break
    os.close(ended)


class Tunnel:
    """What is on its way through the tunnel; owned by the process's only thread."""

    def __init__(self, sockets: LocalSockets, leash: Leash, stream: Stream) -> None:
        self._sockets = sockets
        self._leash = leash
        self._stream = stream
        self._reader = RecordReader(Content.TUNNEL)
        self._arrived: Record | None = None
        self._leaving: list[memoryview] = [memoryview(encode_preamble(Content.TUNNEL))]
        self._nobody_reads = False

    def run(self) -> None:
        """Relay until the stream ends, which is a PeerLost, or the command lets go."""
        while True:
            if self._leash.socket.fileno() in self._turn(None):
                self._leash.check()

    def drain(self) -> None:
        """Let what is said last leave, if somebody reads."""
        deadline = monotonic() + DRAIN_SECONDS
        with suppress(PeerLost, RemoteProtocolError):
            while monotonic() < deadline and (self._turn(QUIET_MS) or self._leaving):
                pass

    def _turn(self, timeout_ms: int | None) -> dict[object, int]:
        ready = self._poll(timeout_ms)
        self._sockets.drop_gone(ready)
        if self._arrived is not None:
            self._deliver()
        elif self._stream.reads in ready:
            self._read()
        if self._leaving:
            self._write()
        elif (record := self._sockets.maybe_take(ready)) is not None:
            self._send(record)
        return ready

    def _poll(self, timeout_ms: int | None) -> dict[object, int]:
        wanted: dict[Any, int] = dict.fromkeys(self._sockets.monitors, zmq.POLLIN)
        if timeout_ms is None:
            wanted[self._leash.socket.fileno()] = zmq.POLLIN
        target = None if self._arrived is None else self._sockets.maybe_target(self._arrived)
        if target is None:
            wanted[self._stream.reads] = zmq.POLLIN
        else:
            wanted[target] = zmq.POLLOUT
        if self._leaving:
            wanted[self._stream.writes] = zmq.POLLOUT
        elif not self._nobody_reads:
            for source in self._sockets.sources:
                wanted[source] = wanted.get(source, 0) | zmq.POLLIN
        poller = zmq.Poller()
        for each, events in wanted.items():
            poller.register(each, events)
        return dict(poller.poll(timeout_ms))

    def _read(self) -> None:
        """Take what has come, up to the next whole record."""
        with suppress(BlockingIOError):
            while self._arrived is None:
                self._arrived = self._reader.took(self._read_some())
            if self._arrived.kind is Kind.END:
                raise RemoteProtocolError("a tunnel with the end of a saved guest in it")
            if self._arrived.kind is Kind.CONTROL and self._sockets.binds:
                self._hear(self._arrived.parts[0])
            self._deliver()

    def _hear(self, envelope: memoryview) -> None:
        """What the destination says; what else is wrong with it the coordinator tells."""
        try:
            message = message_in(envelope)
        except RemoteProtocolError:
            return
        if isinstance(message, Hello):
            raise RemoteProtocolError(
                "what answered is no pageferry destination: it says what a source says"
            )
        self._sockets.note(message)

    def _read_some(self) -> int:
        try:
            return self._stream.read(self._reader.room)
        except PeerLost as error:
            where = "" if self._reader.is_between else ", in the middle of a record"
            raise PeerLost(f"{error}{where}") from None

    def _deliver(self) -> None:
        """Hand on what came, if it is taken; it is dropped where nobody is there any more."""
        assert self._arrived is not None
        target = self._sockets.maybe_target(self._arrived)
        with suppress(zmq.Again):
            if target is not None:
                target.send_multipart(self._arrived.parts, zmq.NOBLOCK)
            self._arrived = None

    def _send(self, record: Record) -> None:
        if record.kind is Kind.CONTROL and self._sockets.binds:
            self._stream.may_have_guest |= isinstance(message_in(record.parts[0]), Commit)
        self._leaving = [memoryview(encode_record(record)), *record.parts]
        self._write()

    def _write(self) -> None:
        """Write what the stream takes. Where nobody reads any more nothing leaves: what has come
        from there is still read."""
        try:
            count = self._stream.write(self._leaving)
        except OSError:
            self._nobody_reads, self._leaving = True, []
            return
        while self._leaving and count >= len(self._leaving[0]):
            count -= len(self._leaving.pop(0))
        if count:
            self._leaving[0] = self._leaving[0][count:]
