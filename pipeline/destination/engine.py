"""What the destination has open while a guest arrives.

`listen` and `prepare` make everything, `close` ends everything; between them the pump hears
and the intake fills memory.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import zmq

from pipeline.config.model import Parameters
from pipeline.control_link import ControlLink
from pipeline.destination.intake import Intake
from pipeline.destination.landing import Landing
from pipeline.destination.pump import IncomingPump
from pipeline.destination.reassembly import Reassembly
from pipeline.guests.base import GuestBlock
from pipeline.guests.disks import ArrivingDisk
from pipeline.signals import Flag
from pipeline.unix_sockets import check_free
from protocol import control as c
from protocol.errors import ConfigError
from protocol.frames import FrameLimits
from protocol.uri import Uri
from workers.decompress import DecompressSettings, decompress_worker
from workers.keys import ServerKeys
from workers.link import ZMQ_DESCRIPTORS, remove_socket
from workers.memory import PassedFd, check_descriptors, page_hashes, shared_memory
from workers.packages import available
from workers.pages import ZERO_HASH, Hashes
from workers.pool import REPLACEMENTS, Pool


class IncomingEngine:
    """The open parts of one incoming migration; owned by the receiver's thread.

    ConfigError from the constructor where `uri` cannot be listened at.
    """

    intake: Intake | None = None

    def __init__(
        self,
        uri: Uri,
        cancel: Flag,
        on_tick: Callable[[int], None],
        keys: ServerKeys | None = None,
    ) -> None:
        self._uri = uri
        self._keys = keys
        check_descriptors(ZMQ_DESCRIPTORS)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._expected_fd: int | None = None
        self._workers = 0
        self._pool: Pool | None = None
        self._reassembly: Reassembly | None = None
        try:
            self.link = ControlLink.bind(self._context, uri, keys)
        except ConfigError:
            self._context.destroy()
            raise
        self.pump = IncomingPump(self.link, cancel, on_tick)

    def socket_paths(self, parameters: Parameters) -> tuple[str, ...]:
        """The files of the sockets that a migration binds: of the control connection, then of
        all workers that there may be; none with tcp."""
        if self._uri.scheme == "tcp":
            return ()
        workers = range(parameters.decompress_threads + REPLACEMENTS)
        endpoints = [self._uri.endpoint, *map(self._uri.data_endpoint, workers)]
        return tuple(endpoint.removeprefix("ipc://") for endpoint in endpoints)

    def prepare(
        self,
        hello: c.Hello,
        memory: list[GuestBlock],
        disks: Sequence[ArrivingDisk],
        parameters: Parameters,
    ) -> None:
        """Start the decompress workers over all blocks, give them slots, welcome the source."""
        blocks = [*memory, *(disk.block for disk in disks)]
        block_pages = tuple(block.pages for block in blocks)
        limits = FrameLimits(self.link.session_id, block_pages, hello.batch_pages)
        workers = self._workers = parameters.decompress_threads
        window = limits.window(hello.connections + workers)
        landings = [Landing(block) for block in blocks]
        expected = self._expected(block_pages, disks) if hello.verify == "full" else None
        for path in self.socket_paths(parameters)[1:]:
            check_free(Path(path), "uri")
        self._reassembly = Reassembly(landings, limits, window, workers, expected)
        self._pool = Pool(self._context, "decompress")
        self.intake = Intake(self._pool, landings, self._reassembly, expected)
        self._start(self._pool, workers, limits, blocks, self._reassembly.fd)
        endpoints = self.intake.open()
        self.pump.watch(self.intake)
        self.link.send(c.Welcome(endpoints=endpoints, window=window, codecs=available()))

    def _expected(
        self, block_pages: tuple[int, ...], disks: Sequence[ArrivingDisk]
    ) -> list[Hashes]:
        """What the source says it sent: nothing yet, so that all is zero, or as in a base."""
        self._expected_fd = shared_memory("expected", 8 * sum(block_pages))
        tables = page_hashes(self._expected_fd, block_pages)
        for table in tables:
            table[:] = ZERO_HASH
        for table, disk in zip(tables[len(tables) - len(disks) :], disks, strict=True):
            if disk.base is not None:
                table[:] = disk.base
        return tables

    def _start(
        self, pool: Pool, workers: int, limits: FrameLimits, blocks: list[GuestBlock], slots: int
    ) -> None:
        hashes = self._expected_fd
        pool.start(
            workers,
            decompress_worker,
            lambda address: DecompressSettings(
                address=address,
                endpoint=self._uri.data_endpoint(address.worker),
                limits=limits,
                slots=PassedFd(slots),
                memory=tuple(PassedFd(block.fd) for block in blocks),
                hashes=None if hashes is None else PassedFd(hashes),
                keys=self._keys,
            ),
            self.pump.hear_and_tick,
        )

    def close(self) -> None:
        """End workers, sockets and shared memory. Idempotent."""
        if self._pool is not None:
            self._pool.stop()
            for worker in range(self._workers + REPLACEMENTS):
                remove_socket(self._uri.data_endpoint(worker))
        if self._reassembly is not None:
            self._reassembly.close()
        self.intake = self._reassembly = None  # whoever still knows us keeps no memory mapped
        self.pump.forget()
        self.link.close()
        self._context.destroy()
        if self._expected_fd is not None:
            os.close(self._expected_fd)
            self._expected_fd = None
