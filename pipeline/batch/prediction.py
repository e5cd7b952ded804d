"""How long a migration takes, before it has begun. Pure.

Pre-copy sends all of memory, then what was dirtied meanwhile, and so on: M (1 + d/m + (d/m)² …) =
M / (1 - d/m) bytes, where memory leaves at m bytes a second and the guest dirties d.
"""

RATIO = {"none": 1.0, "lz4": 1.9, "zlib": 2.2, "zstd": 2.3, "auto": 2.3}
"""Bytes of memory for one on the wire: what mixed memory came to on a link of 200 Mbit/s
(docs/performance.md)."""
FULL_SPEED = 250 << 20
"""Bytes of memory a second of one migration that no link holds back: 2 cores for both ends."""
WIRE_SPEED = FULL_SPEED / RATIO["zlib"]
"""Bytes/s that such a migration has on the wire."""
MOST_ROUNDS = 8.0
"""A guest that dirties as fast as it is sent is cut off by its downtime limit, or not at all."""


def memory_rate(codec: str, share: float | None) -> float:
    """Bytes of memory a second, with `share` bytes/s of the link; None: nothing holds it back."""
    return FULL_SPEED if share is None else min(FULL_SPEED, share * RATIO[codec])


def memory_to_send(memory: int, dirty_rate: float, rate: float) -> float:
    """Bytes of memory that travel in all rounds, by the formula above."""
    return memory * min(MOST_ROUNDS, 1 / max(1e-9, 1 - dirty_rate / rate) if dirty_rate < rate
                        else MOST_ROUNDS)  # fmt: skip


def seconds(memory: int, dirty_rate: float, codec: str, share: float | None) -> float:
    """For all rounds; what begins and ends an attempt comes on top."""
    rate = memory_rate(codec, share)
    return memory_to_send(memory, dirty_rate, rate) / rate
