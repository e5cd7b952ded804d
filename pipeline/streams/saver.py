"""The saver: plays the destination, and puts the guest into a file.

Frames go there in the order of their seq. `verify: full` is answered from what the file, flushed
and read back, makes of every page.
"""

from collections import deque
from dataclasses import dataclass
from pathlib import Path
from time import monotonic_ns

import zmq

from pipeline.control_link import ControlLink
from pipeline.streams.leash import Leash, stand
from pipeline.streams.read_back import FileReadBack
from pipeline.streams.saved import SavedReader, SavedWriter
from protocol import control as c
from protocol.channel import Channel
from protocol.errors import FrameDamaged, IntegrityError, MigrationError
from protocol.frame_opening import decode_batch, decode_hello, maybe_seq
from protocol.frames import Batch, FrameLimits
from protocol.limits import MAX_WINDOW, REASON_CHARS
from protocol.reorder import ReorderWindow
from protocol.session import Stage
from protocol.stream import Kind, Record
from protocol.uri import Uri
from workers.memory import PassedFd
from workers.packages import available

POLL_MS = 50
HIGH_WATER = 4
FRAMES_A_TURN = 8
COMMIT_SECONDS = 600.0
LINGER_MS = 500


@dataclass(frozen=True)
class SaverSettings:
    """What a saver is started with; `uri` names the file, and the socket to listen at."""

    folder: Path
    leash: PassedFd
    uri: Uri


def saver(settings: SaverSettings) -> None:
    """The body of a saver process."""
    stand(settings.leash, settings.folder, lambda leash: _run(settings, leash))


def _run(settings: SaverSettings, leash: Leash) -> None:
    with zmq.Context() as context:
        link = ControlLink.bind(context, settings.uri)
        try:
            file = SavedWriter(Path(settings.uri.path))
            Saver(context, link, leash, settings.uri, file).run()
        except MigrationError as error:
            link.end(c.Failed(reason=str(error)[:REASON_CHARS], cancelled=False))
            raise
        finally:
            link.close()
            context.destroy(linger=LINGER_MS)


class Saver:
    """One guest on its way into a file; owned by the process's only thread."""

    def __init__(
        self,
        context: "zmq.Context[zmq.Socket[bytes]]",
        link: ControlLink,
        leash: Leash,
        uri: Uri,
        file: SavedWriter,
    ) -> None:
        self._link = link
        self._leash = leash
        self._uri = uri
        self._file = file
        self._data = context.socket(zmq.ROUTER)
        self._data.rcvhwm = HIGH_WATER
        self._poller = zmq.Poller()
        for source in (link.socket, self._data, leash.socket.fileno()):
            self._poller.register(source, zmq.POLLIN)
        self._waiting: ReorderWindow[tuple[Batch, Record]] = ReorderWindow(MAX_WINDOW)
        self._round_no = 0
        self._told = 0
        self._unsaid: deque[c.Redo] = deque()
        self._question: c.Verify | None = None
        self._is_over = False

    def run(self) -> None:
        """Take the guest until the source has heard that all of it is saved."""
        while not self._is_over:
            ready = dict(self._poller.poll(POLL_MS))
            self._breathe()
            for message in self._link.receive():
                self._hear(message)
            if self._data in ready:
                self._take_frames()
            self._write_frames()
            self._tell()
            self._link.tick(monotonic_ns())

    def _breathe(self) -> None:
        """What must go on while the file is read."""
        self._leash.check()
        self._link.beat(monotonic_ns())

    def _hear(self, message: c.AnyMessage) -> None:
        match message:
            case c.Hello():
                self._greet(message)
            case c.Holes():
                self._keep(message)
            case c.RoundStart(round_no=round_no):
                self._round_no = round_no
                self._keep(message)
            case c.Verify():
                self._question = message
                self._keep(message)
            case c.Devices():
                self._keep(message)
                if message.last:
                    self._finish()
            case c.Commit():
                self._publish()
            case c.Settled() | c.Cancel():
                self._link.send(c.Alive())  # so that it need not be repeated
                self._is_over = True

    def _keep(self, message: c.AnyMessage) -> None:
        envelope = memoryview(self._channel.outgoing(message))
        self._file.write(Record(Kind.CONTROL, 0, [envelope]))

    def _greet(self, hello: c.Hello) -> None:
        self._channel = Channel(self._link.session_id)
        pages = tuple(block.pages for block in hello.blocks)
        self._limits = FrameLimits(self._link.session_id, pages, hello.batch_pages)
        self._data.maxmsgsize = self._limits.payload_bytes + self._limits.head_bytes
        self._read_back = FileReadBack(
            SavedReader(self._file.fd), self._limits, full=hello.verify == "full"
        )
        self._keep(hello)
        endpoint = self._uri.data_endpoint(0)
        self._data.bind(endpoint)
        window = self._limits.window(hello.connections + 1)
        self._link.send(c.Welcome(endpoints=[endpoint], window=window, codecs=available()))

    def _take_frames(self) -> None:
        for _ in range(FRAMES_A_TURN):
            try:
                _, *parts = self._data.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return
            self._take([part.buffer for part in parts])

    def _take(self, parts: list[memoryview]) -> None:
        if len(parts) != 2:
            decode_hello(parts[0], self._limits.session)
            return
        try:
            batch = decode_batch(parts[0], parts[1], self._limits)
        except FrameDamaged as error:
            redo = c.Redo(seq=maybe_seq(parts[0]), reason=str(error)[:REASON_CHARS])
            self._unsaid.append(redo)
            return
        self._waiting.add(batch.seq, (batch, Record(Kind.FRAME, 0, parts)))

    def _write_frames(self) -> None:
        """Write what is next in order; a frame that came before its round waits for that."""
        while (head := self._waiting.head()) is not None and head[0].round_no <= self._round_no:
            self._file.write(self._waiting.advance()[1])

    def _tell(self) -> None:
        applied = self._waiting.applied
        if self._link.session.stage in (Stage.MOVING, Stage.VERIFYING):
            self._tell_of_frames(applied)
        if self._question is not None and applied >= self._question.last_seq:
            question, self._question = self._question, None
            self._verify(question)

    def _tell_of_frames(self, applied: int) -> None:
        while self._unsaid:
            self._link.send(self._unsaid.popleft())
        if applied > self._told:
            self._told = applied
            self._link.send(c.Applied(seq=applied, decompress_ns=0, write_ns=0, uncompared=0))

    def _verify(self, question: c.Verify) -> None:
        """Read all of it back; IntegrityError where it is not what the source has sent."""
        self._file.flush()
        self._read_back.read_on(self._breathe)
        if question.digests and self._read_back.digests() != question.digests:
            raise IntegrityError(f"{self._uri} does not hold what was sent")
        self._link.send(c.Verified(mismatches=0))

    def _finish(self) -> None:
        """Seal it, and read the seal back, too."""
        began = monotonic_ns()
        self._file.finish()
        self._read_back.read_on(self._breathe)
        if not self._read_back.is_whole:
            raise IntegrityError(f"{self._uri} does not hold what was sent")
        self._link.await_commit(COMMIT_SECONDS)
        self._link.send(c.Ready(load_ms=(monotonic_ns() - began) / 1e6))

    def _publish(self) -> None:
        """All of it is on the disk: now it gets its name."""
        if self._link.session.stage is not Stage.COMMITTED:
            return
        try:
            self._file.publish()
        except MigrationError as error:
            self._link.send(c.NotStarted(reason=str(error)[:REASON_CHARS]))
            self._is_over = True
            return
        self._link.send(c.Started(since_ms=0, running=False))
