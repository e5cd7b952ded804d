"""The player: plays the source out of the file of a saved guest.

All of the file is read first: one that is damaged, cut off, or no such file, says not even hello.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import monotonic_ns
from typing import TypeVar

import zmq

from pipeline.control_link import ControlLink
from pipeline.streams.leash import Leash, stand
from pipeline.streams.saved import SavedReader
from protocol import control as c
from protocol.channel import Channel, session_of
from protocol.errors import (
    IntegrityError,
    LocalProtocolError,
    MigrationError,
    PeerLost,
    RemoteProtocolError,
)
from protocol.frame_opening import maybe_seq
from protocol.frames import encode_hello
from protocol.limits import REASON_CHARS, REDOS
from protocol.session import Stage
from protocol.stream import Kind, Record
from protocol.uri import Uri
from workers.memory import PassedFd

POLL_MS = 50
HIGH_WATER = 4
COMMIT_SECONDS = 60.0
LINGER_MS = 500

Answer = TypeVar("Answer", bound=c.Message)
Socket = zmq.Socket[bytes]


@dataclass(frozen=True)
class PlayerSettings:
    """What a player is started with; `uri` names the file, and the socket of the receiver."""

    folder: Path
    leash: PassedFd
    uri: Uri
    file: PassedFd


def player(settings: PlayerSettings) -> None:
    """The body of a player process."""
    stand(settings.leash, settings.folder, lambda leash: _run(settings, leash))


def _run(settings: PlayerSettings, leash: Leash) -> None:
    try:
        session = _checked(SavedReader(settings.file.fd), leash)
    except RemoteProtocolError as error:
        raise RemoteProtocolError(f"{settings.uri.path} is no saved guest: {error}") from None
    with zmq.Context() as context:
        link = ControlLink.connect(context, settings.uri, session)
        play = Player(context, link, leash, settings.uri)
        try:
            play.run(SavedReader(settings.file.fd), Channel(session))
        except MigrationError as error:
            wrong = isinstance(error, LocalProtocolError | RemoteProtocolError)
            told = f"{settings.uri.path} is no saved guest: {error}" if wrong else str(error)
            link.end(c.Cancel(reason=told[:REASON_CHARS], failed=True))
            raise
        finally:
            link.close()
            context.destroy(linger=LINGER_MS)


def _checked(file: SavedReader, leash: Leash) -> bytes:
    """The session of a whole and undamaged file; RemoteProtocolError for any other."""
    first = record = file.maybe_next()
    while record is not None:
        leash.check()
        record = file.maybe_next()
    if first is None or first.kind is not Kind.CONTROL:
        raise RemoteProtocolError("it does not begin with a hello")
    if not file.is_whole:
        raise RemoteProtocolError("its end is missing")
    return session_of(first.parts[0])


class Player:
    """One guest on its way out of a file; owned by the process's only thread."""

    def __init__(
        self, context: "zmq.Context[Socket]", link: ControlLink, leash: Leash, uri: Uri
    ) -> None:
        self._context = context
        self._link = link
        self._leash = leash
        self._uri = uri
        self._answers: dict[type[c.Message], c.Message] = {}
        self._lanes: list[Socket] = []
        self._out: dict[int, Record] = {}
        self._redone: Counter[int] = Counter()
        self._window = 0
        self._seq = 0

    def run(self, file: SavedReader, channel: Channel) -> None:
        """Say and send what is in `file`; `channel` knows what was said there in which order."""
        while (record := file.maybe_next()) is not None:
            if record.kind is Kind.FRAME:
                self._send(record)
            elif record.kind is Kind.CONTROL:
                message = channel.incoming(record.parts[0])
                if message is None:
                    raise RemoteProtocolError("a message of the saved guest is missing")
                self._say(message)
        if c.Started not in self._answers:
            raise RemoteProtocolError("the saved guest has no device state")

    def _say(self, message: c.AnyMessage) -> None:
        self._check_seq(message)
        self._wait(lambda: not self._out)
        self._link.send(message)
        match message:
            case c.Hello():
                welcome = self._expect(c.Welcome)
                self._window = welcome.window
                self._lanes = [self._connect(endpoint) for endpoint in welcome.endpoints]
            case c.Verify():
                if wrong := self._expect(c.Verified).mismatches:
                    raise IntegrityError(f"{wrong} pages differ from what was saved")
            case c.Devices(last=True):
                self._expect(c.Ready)
                self._commit()

    def _check_seq(self, message: c.AnyMessage) -> None:
        """Nobody is to wait for frames that there are not."""
        match message:
            case c.RoundStart(first_seq=seq) if seq != self._seq + 1:
                raise RemoteProtocolError(f"a round from frame {seq} on, after {self._seq}")
            case c.Verify(last_seq=seq) if seq != self._seq:
                raise RemoteProtocolError(f"a verification of {seq} frames, after {self._seq}")

    def _commit(self) -> None:
        """The file is whole, and all of it is there: let the guest begin."""
        self._link.await_commit(COMMIT_SECONDS)
        self._link.send(c.Commit())
        self._wait(lambda: c.Started in self._answers)
        self._link.send(c.Settled())
        self._wait(lambda: self._link.all_acknowledged)

    def _connect(self, endpoint: str) -> Socket:
        lane = self._context.socket(zmq.DEALER)
        lane.sndhwm = HIGH_WATER
        lane.linger = 0
        lane.connect(self._uri.reachable(endpoint))
        lane.send_multipart([encode_hello(self._link.session_id, 0)])
        return lane

    def _send(self, record: Record) -> None:
        """Send a frame once the window has room; it is at hand until it is applied."""
        seq = maybe_seq(record.parts[0])
        is_frame = len(record.parts) == 2 and seq == self._seq + 1
        if not is_frame or self._link.session.stage is not Stage.MOVING:
            raise RemoteProtocolError(f"no frame {self._seq + 1} where it should be")
        self._seq = seq
        self._wait(lambda: len(self._out) < self._window)
        self._out[seq] = record
        self._transmit(seq)

    def _transmit(self, seq: int) -> None:
        """Hand a frame to its lane, when that takes it; another lane may have come meanwhile."""
        while seq in self._out:
            try:
                lane = self._lanes[seq % len(self._lanes)]
                lane.send_multipart(self._out[seq].parts, zmq.NOBLOCK)
                return
            except zmq.Again:
                self._turn((lane, zmq.POLLOUT))

    def _wait(self, until: Callable[[], bool]) -> None:
        while not until():
            self._turn()

    def _expect(self, answer: type[Answer]) -> Answer:
        self._wait(lambda: answer in self._answers)
        found = self._answers.pop(answer)
        assert isinstance(found, answer)
        return found

    def _turn(self, *also: tuple[Socket, int]) -> None:
        poller = zmq.Poller()
        for source, events in (
            (self._link.socket, zmq.POLLIN),
            (self._leash.socket.fileno(), zmq.POLLIN),
            *also,
        ):
            poller.register(source, events)
        poller.poll(POLL_MS)
        self._leash.check()
        for message in self._link.receive():
            self._hear(message)
        self._link.tick(monotonic_ns())

    def _hear(self, message: c.AnyMessage) -> None:
        match message:
            case c.Applied(seq=applied):
                for seq in [seq for seq in self._out if seq <= applied]:
                    del self._out[seq]
            case c.Redo(seq=seq):
                self._redo(seq)
            case c.Endpoint(lane=number, endpoint=endpoint) if number < len(self._lanes):
                self._replace(number, endpoint)
            case c.Failed(reason=reason) | c.NotStarted(reason=reason):
                raise PeerLost(f"the destination failed: {reason}")
            case _:
                self._answers[type(message)] = message

    def _redo(self, seq: int) -> None:
        """What was damaged on its way goes again; what is damaged in the file stays so."""
        self._redone[seq] += 1
        if self._redone[seq] > REDOS:
            raise RemoteProtocolError(f"frame {seq} is damaged")
        self._transmit(seq)

    def _replace(self, number: int, endpoint: str) -> None:
        """Another worker has the lane: what went by it and is not applied goes again."""
        self._lanes[number].close(0)
        self._lanes[number] = self._connect(endpoint)
        for seq in [seq for seq in self._out if seq % len(self._lanes) == number]:
            self._transmit(seq)
