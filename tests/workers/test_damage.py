"""A frame with any one bit flipped, as a real decompress worker gets it: dropped, and said."""

from itertools import chain
from pathlib import Path

from protocol.limits import PAGE_BYTES
from tests.protocol.samples import single_bit_flips
from tests.workers.decompressing import HELLO, batch_of, decompressing, frame_of
from tests.workers.driving import Context

PAGE = b"page" * (PAGE_BYTES // 4)


def test_every_flipped_bit_is_said_and_nothing_is_taken(context: Context, folder: Path) -> None:
    """A bit whose flip is taken for a frame, ends the worker, or costs a slot."""
    head, payload = frame_of(batch_of(1, {3: PAGE}))
    heads = ((damaged, payload) for damaged in single_bit_flips(head))
    payloads = ((head, damaged) for damaged in single_bit_flips(payload))
    flips = 0
    with decompressing(context, folder) as worker, worker.connected(HELLO) as lane:
        worker.grant(0)
        for parts in chain(heads, payloads):
            lane.send_multipart(parts)
            refused = worker.refused()
            assert refused.damaged, refused
            flips += 1
        lane.send_multipart([head, payload])
        assert worker.arrived().slot == 0
        assert worker.slot(0, 1) == PAGE
    assert flips == 8 * len(head + payload)
