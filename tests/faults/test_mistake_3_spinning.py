"""Mistake 3: the receiver spun, waiting for a free worker; here nobody spins for anything."""

from pathlib import Path

import pytest

from protocol import control as c
from protocol.status import Status
from tests.faults.ends import RunningReceiver, RunningSource, spins
from tests.faults.fake_destination import FakeDestination
from tests.faults.fake_source import FakeSource
from tests.faults.memories import ArrivingMemory, LeavingMemory, random_words

pytestmark = pytest.mark.timeout(30)


@pytest.mark.parametrize("seqs", [(), range(2, 13)], ids=["no frame", "the first one missing"])
def test_a_destination_waits_without_work(folder: Path, seqs: range) -> None:
    """A receiver or a decompress worker that asks again and again whether there is something."""
    with (
        RunningReceiver(ArrivingMemory(48), workers=2) as there,
        FakeSource(there.uri, random_words(48)) as here,
    ):
        here.start_round()
        here.send_frames(*seqs)
        assert not spins(lambda seconds: here.maybe_hear(c.Applied, within_s=seconds))
        assert there.status.status is Status.ACTIVE


@pytest.mark.parametrize("limit", [0, 64 << 10], ids=["slow link", "wire limit"])
def test_a_source_waits_for_its_link_without_work(folder: Path, limit: int) -> None:
    """A compress worker or a coordinator that spins while nothing can leave."""
    guest = LeavingMemory(random_words(4096))
    with FakeDestination(folder, window=64) as there:
        if not limit:
            there.taking.clear()
        with RunningSource(
            there.uri, guest, codec="none", parameters={"max_bandwidth": limit}
        ) as here:
            assert not spins(here.join)
            assert here.status.status is Status.ACTIVE
            assert here.coordinator.engine.dispatcher.last_seq > there.applied
