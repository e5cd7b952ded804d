"""Mistake 2: the guest was started before the last page was decompressed."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from protocol import control as c
from protocol.status import Status
from tests.faults.ends import RunningReceiver
from tests.faults.fake_source import FakeSource
from tests.faults.memories import ArrivingMemory, random_words

PAGES = 48
SEQS = range(1, 13)
A_WHILE_S = 0.4
"""For what must not happen: many times what the two ends take for it when it is legal."""

pytestmark = [pytest.mark.timeout(30), pytest.mark.usefixtures("folder")]


@contextmanager
def migration(*, writable: bool = True) -> Iterator[tuple[FakeSource, RunningReceiver]]:
    """A fake source that has opened its round, and the real destination."""
    guest = ArrivingMemory(PAGES, writable=writable)
    with (
        RunningReceiver(guest, workers=2) as there,
        FakeSource(there.uri, random_words(PAGES)) as here,
    ):
        here.start_round()
        yield here, there


@pytest.mark.parametrize("late", [SEQS[0], SEQS[-1]])
def test_the_start_comes_after_everything_else(late: int) -> None:
    """A destination that verifies, loads or starts while a frame is still on its way."""
    with migration() as (here, there):
        here.send_frames(*(seq for seq in SEQS if seq != late))
        here.say_verify()
        assert here.maybe_hear(c.Verified, within_s=A_WHILE_S) is None
        here.send_frames(late)
        here.expect(c.Verified)
        assert there.guest.done == []
        here.send_devices()
        here.expect(c.Ready)
        assert here.maybe_hear(c.Started, within_s=A_WHILE_S) is None
        assert there.guest.done == ["load"]
        here.say(c.Commit())
        here.expect(c.Started)
        here.say(c.Settled())
        assert there.ended() is Status.COMPLETED
        assert there.guest.done == ["load", "start", "announce"]
        assert there.guest.at_start is not None
        assert np.array_equal(there.guest.at_start, random_words(PAGES))


@pytest.mark.parametrize("step", ["frames", "verified", "loading"])
def test_a_commit_before_ready_starts_nothing(step: str) -> None:
    """A commit that is taken as an order whenever it comes."""
    with migration() as (here, there):
        here.send_frames(*SEQS[: -1 if step == "frames" else None])
        if step != "frames":
            here.say_verify()
            here.expect(c.Verified)
        if step == "loading":
            here.say(c.Devices(data=b"", last=False))
        here.say(c.Commit())
        assert there.ended() is Status.FAILED
        assert "Commit" in str(there.receiver.error)
        assert "start" not in there.guest.done


def test_ready_without_a_commit_starts_nothing() -> None:
    """A destination that starts its guest when the source gives up after ready."""
    with migration() as (here, there):
        here.send_frames(*SEQS)
        here.say_verify()
        here.expect(c.Verified)
        here.send_devices()
        here.expect(c.Ready)
        here.say(c.Cancel(reason="no more", failed=True))
        assert there.ended() is Status.FAILED
        assert there.guest.done == ["load"]


def test_frames_are_applied_in_their_order() -> None:
    """Frames that are written, or acknowledged, while an earlier one is missing."""
    with migration() as (here, there):
        here.send_frames(*reversed(SEQS[1:]))
        assert here.maybe_hear(c.Applied, within_s=A_WHILE_S) is None
        assert not there.guest.words().any()
        here.send_frames(SEQS[0])
        while here.expect(c.Applied).seq < SEQS[-1]:
            pass
        assert np.array_equal(there.guest.words(), random_words(PAGES))


def test_what_cannot_be_written_is_not_acknowledged() -> None:
    """An acknowledgement that is sent before the write, which may still fail."""
    with migration(writable=False) as (here, there):
        here.send_frames(*SEQS[1:])
        assert here.maybe_hear(c.Applied, within_s=A_WHILE_S) is None
        here.send_frames(SEQS[0])
        assert isinstance(here.expect(c.Applied, c.Failed), c.Failed)
        assert there.ended() is Status.FAILED
