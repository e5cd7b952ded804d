"""The codec alone, as a ceiling: what cores reach that do nothing but pack and unpack.

The image without its zero pages, in pieces of 256 KiB, a share for each core. Reading
the image and leaving out its zeros is not timed.
"""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from time import monotonic

import numpy as np

from benchmarks.running import Measured, Settings
from protocol.limits import PAGE_BYTES
from workers.codecs import compress, decompress

CODECS = ("zlib", "zstd")
PIECE_BYTES = 256 << 10


def measure(codec: str, settings: Settings) -> Measured:
    """Every piece packed and unpacked once, `settings.threads` at a time."""
    cores = settings.threads
    with ProcessPoolExecutor(cores, get_context("spawn")) as pool:
        shares = [pool.submit(work, codec, settings, part, cores) for part in range(cores)]
        done = [share.result() for share in shares]
    return Measured(max(seconds for seconds, _ in done), sum(packed for _, packed in done))


def work(codec: str, settings: Settings, part: int, parts: int) -> tuple[float, int]:
    """Seconds for this part of the pieces, and the bytes that they shrank to."""
    pieces = nonzero_pieces(settings)[part::parts]
    target = memoryview(bytearray(PIECE_BYTES))
    began, packed_bytes = monotonic(), 0
    for piece in pieces:
        by, packed = compress(codec, piece, settings.level)
        decompress(by, packed, target[: len(piece)])
        packed_bytes += len(packed)
    return monotonic() - began, packed_bytes


def nonzero_pieces(settings: Settings) -> list[memoryview]:
    """The image's pages that are not zero, one behind the other, cut."""
    pages = np.fromfile(settings.image, np.uint64).reshape(-1, PAGE_BYTES // 8)
    data = memoryview(pages[pages.any(axis=1)].reshape(-1).view(np.uint8))
    return [data[start : start + PIECE_BYTES] for start in range(0, len(data), PIECE_BYTES)]
