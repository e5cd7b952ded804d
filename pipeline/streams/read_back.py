"""What a saved guest's file makes of its memory: every frame decoded, every page hashed."""

from collections.abc import Callable

import numpy as np

from pipeline.streams.saved import SavedReader
from protocol.digest import page_seed, table_digest
from protocol.errors import RemoteProtocolError
from protocol.frame_opening import decode_batch
from protocol.frames import DATA, Batch, FrameLimits
from protocol.limits import PAGE_BYTES
from protocol.stream import Kind
from workers.codecs import decompress
from workers.pages import ZERO_HASH, PageBuffer


class FileReadBack:
    """The read-back of a file, as far as it is written; owned by the saver.

    Where it is not `full` frames are decoded, and no page is hashed.
    """

    def __init__(self, file: SavedReader, limits: FrameLimits, *, full: bool) -> None:
        self._file = file
        self._limits = limits
        self._full = full
        self._buffer = PageBuffer(limits.batch_pages, seed=page_seed(limits.session))
        pages = limits.block_pages if full else ()
        self._tables = [np.full(count, ZERO_HASH, np.uint64) for count in pages]

    def read_on(self, breathe: Callable[[], None]) -> None:
        """Read what was not read yet; RemoteProtocolError for what is not as it was written."""
        while (record := self._file.maybe_next()) is not None:
            breathe()
            if record.kind is Kind.FRAME:
                head, payload = record.parts
                self._land(decode_batch(head, payload, self._limits))

    def _land(self, batch: Batch) -> None:
        if batch.delta_bytes:
            raise RemoteProtocolError("a saved guest has no deltas")
        if not self._full:
            return
        count = batch.data_pages
        decompress(batch.codec, batch.payload, self._buffer.bytes[: count * PAGE_BYTES])
        table = self._tables[batch.block]
        table[batch.pages] = ZERO_HASH
        table[batch.pages[batch.kinds == DATA]] = self._buffer.hashes(count)

    def digests(self) -> list[int]:
        """Of each block's page hashes, as the source has them."""
        return [table_digest(table) for table in self._tables]

    @property
    def is_whole(self) -> bool:
        """Whether the file's seal was read, and right."""
        return self._file.is_whole
