"""The QMP server: a UNIX socket, a thread of its own, any number of clients.

Reads, splits and answers; what a command does is done by the thread that owns the migration,
which finds it in the inbox.
"""

import asyncio
import os
import socket
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from threading import Thread
from time import time_ns

import structlog

from pipeline.monitor.commands import Commands, NoArguments, spoken_version
from pipeline.monitor.inbox import Inbox
from pipeline.unix_sockets import check_free
from protocol.errors import ConfigError
from protocol.qmp import (
    CommandNotFound,
    QmpError,
    Request,
    Splitter,
    decode_arguments,
    decode_request,
    encode_error,
    encode_event,
    encode_greeting,
    encode_return,
)
from protocol.uri import UNIX_PATH_BYTES

MAX_CLIENTS = 32
READ_BYTES = 1 << 16
UNREAD_BYTES = 1 << 20
"""Answers and events that a client leaves unread, before it is dropped."""
CLOSE_SECONDS = 1.0


class QmpServer:
    """Serves at `path`, mode 0600, until `close`; ConfigError where it cannot listen there."""

    def __init__(self, path: Path, commands: Commands, inbox: Inbox) -> None:
        self._path = path
        self._commands = commands
        self._inbox = inbox
        self._clients: dict[asyncio.StreamWriter, Client] = {}
        listener = _listener(path)
        self._loop = asyncio.new_event_loop()
        self._server = self._loop.run_until_complete(
            asyncio.start_unix_server(self._serve, sock=listener, limit=READ_BYTES)
        )
        self._thread = Thread(target=self._loop.run_forever, name="qmp", daemon=True)
        self._thread.start()

    def emit(self, name: str, data: dict[str, object]) -> None:
        """Tell every client that has come so far. By any thread."""
        event = encode_event(name, data, time_ns())
        self._loop.call_soon_threadsafe(self._tell, event)

    def _tell(self, event: bytes) -> None:
        for client in list(self._clients.values()):
            client.tell(event)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._clients) >= MAX_CLIENTS:
            structlog.get_logger().warning(f"qmp: a client too many, {MAX_CLIENTS} are there")
            writer.close()
            return
        client = self._clients[writer] = Client(writer, self._commands, self._inbox)
        try:
            await client.serve(reader)
        finally:
            del self._clients[writer]
            writer.close()

    def close(self) -> None:
        """Let the last answers leave, then drop all clients and the socket. Idempotent."""
        if self._loop.is_closed():
            return
        with suppress(TimeoutError, asyncio.CancelledError):
            asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(2 * CLOSE_SECONDS)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._path.unlink(missing_ok=True)

    async def _end(self) -> None:
        """Those that do not read by the time are dropped, with what they have not read."""
        self._server.close()
        last = [asyncio.ensure_future(client.close()) for client in self._clients.values()]
        if last:
            await asyncio.wait(last, timeout=CLOSE_SECONDS)
        for writer in self._clients:
            writer.transport.abort()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Client:
    """One client: first the negotiation, then commands, one after the other."""

    def __init__(self, writer: asyncio.StreamWriter, commands: Commands, inbox: Inbox) -> None:
        self._writer = writer
        self._commands = commands
        self._inbox = inbox
        self._splitter = Splitter()
        self._negotiated = False
        self.answering = asyncio.Lock()
        """Held from a request on until its answer has left."""

    async def serve(self, reader: asyncio.StreamReader) -> None:
        """Answer until the client is gone."""
        self._writer.write(encode_greeting(spoken_version()))
        with suppress(OSError):
            while data := await reader.read(READ_BYTES):
                for text in self._splitter.feed(data):
                    async with self.answering:
                        self._writer.write(await self._answer(text))
                        await self._writer.drain()

    async def close(self) -> None:
        """Let the answer that is due leave, and what was said before."""
        async with self.answering:
            self._writer.close()
            with suppress(OSError):
                await self._writer.wait_closed()

    def tell(self, event: bytes) -> None:
        """Send an event to one that has negotiated; drop one that does not read."""
        if not self._negotiated:
            return
        self._writer.write(event)
        if self._writer.transport.get_write_buffer_size() > UNREAD_BYTES:
            structlog.get_logger().warning("qmp: a client that does not read was dropped")
            self._writer.transport.abort()

    async def _answer(self, text: bytes | None) -> bytes:
        request = Request()
        try:
            request = decode_request(text)
            if request.execute == "qmp_capabilities" or not self._negotiated:
                self._negotiate(request)
                return encode_return(None, request.id)
            self._commands.check(request)
            done: Future[object] = self._inbox.put(lambda: self._commands.do(request))
            return encode_return(await asyncio.wrap_future(done), request.id)
        except QmpError as error:
            return encode_error(error, request.id)

    def _negotiate(self, request: Request) -> None:
        if request.execute != "qmp_capabilities":
            raise CommandNotFound("Expecting capabilities negotiation with 'qmp_capabilities'")
        if self._negotiated:
            raise CommandNotFound("Capabilities negotiation is already complete")
        given = request.arguments
        if given != {"enable": []}:
            decode_arguments(given, NoArguments)
        self._negotiated = True


def _listener(path: Path) -> socket.socket:
    """A socket that only its owner may connect to, from its first moment on."""
    if len(os.fsencode(path)) > UNIX_PATH_BYTES:
        raise ConfigError(f"--qmp: {path} is longer than the {UNIX_PATH_BYTES} bytes of a socket")
    check_free(path, "--qmp")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        os.fchmod(listener.fileno(), 0o600)
        path.unlink(missing_ok=True)
        listener.bind(str(path))
    except OSError as error:
        listener.close()
        raise ConfigError(f"--qmp: cannot listen on {path}: {error.strerror}") from None
    return listener
