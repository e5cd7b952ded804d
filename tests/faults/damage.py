"""Bits that flip in what a relay hands on, connection by connection."""

import re
from collections.abc import Callable, Iterable

from protocol.frames import DIGEST_OFFSET, MAGIC

SEQ_AT = 32

Damage = Callable[[bytearray, int, bytes], int]
"""Damages a piece of what a connection carries, which begins at an offset in it and behind the
`TAIL_BYTES` bytes, at most, that are given; how many bits have flipped."""

TAIL_BYTES = DIGEST_OFFSET


class FlipsAt:
    """A bit at each of `offsets`, counted from the start of each connection; once each."""

    def __init__(self, offsets: Iterable[int]) -> None:
        self._left = list(offsets)

    def __call__(self, data: bytearray, start: int, _: bytes) -> int:
        """Flip what lies in this piece."""
        found = [offset for offset in self._left if start <= offset < start + len(data)]
        for offset in found:
            self._left.remove(offset)
            data[offset - start] ^= 0x10
        return len(found)


class FlipsInFrame:
    """A bit in the digest of frame `seq`, each time that it comes by."""

    def __init__(self, seq: int) -> None:
        before, after = SEQ_AT - len(MAGIC), DIGEST_OFFSET - SEQ_AT - 8
        parts = (MAGIC, b".{%d}" % before, re.escape(seq.to_bytes(8, "little")), b".{%d}." % after)
        self._up_to_digest = re.compile(b"".join(parts), re.DOTALL)

    def __call__(self, data: bytearray, _: int, tail: bytes) -> int:
        """Flip it in every header whose digest begins in this piece."""
        found = [match.end() - 1 for match in self._up_to_digest.finditer(tail + data)]
        for at in found:
            data[at - len(tail)] ^= 0x10
        return len(found)
