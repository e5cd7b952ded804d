"""Whether a migration may begin, and what is left of one that could not."""

from collections.abc import Iterator
from contextlib import closing

import pytest

from pipeline.config.model import Config
from pipeline.source.outgoing import Outgoing
from protocol.errors import ConfigError, MigrationRefused
from protocol.status import Status
from protocol.uri import Uri
from tests.faults.memories import LeavingMemory, random_words
from tests.system.migrations import nobody, settings


@pytest.fixture(name="guest")
def _guest() -> Iterator[LeavingMemory]:
    with closing(LeavingMemory(random_words(8))) as guest:
        yield guest


@pytest.fixture(name="outgoing")
def _outgoing(guest: LeavingMemory) -> Outgoing:
    return Outgoing(Config.model_validate(settings()), guest, nobody)


def refusal(outgoing: Outgoing) -> str:
    """Why none may begin now; nothing has changed."""
    before = (outgoing.status.status, outgoing.coordinator, outgoing.error)
    with pytest.raises(MigrationRefused) as refused:
        outgoing.begin()
    assert (outgoing.status.status, outgoing.coordinator, outgoing.error) == before
    return str(refused.value)


def test_refusals_come_in_their_order(outgoing: Outgoing, guest: LeavingMemory) -> None:
    """A guest that migrates twice at once, or while somebody needs it here."""
    outgoing.blockers.add("a snapshot is made")
    outgoing.blockers.add("a disk is attached")
    assert refusal(outgoing) == "a disk is attached"
    guest.obstacle = "the device x cannot be saved"
    assert refusal(outgoing) == "the device x cannot be saved"
    guest.obstacle = None
    outgoing.blockers.remove("a disk is attached")
    assert refusal(outgoing) == "a snapshot is made"
    outgoing.blockers.remove("a snapshot is made")
    outgoing.begin()
    guest.obstacle = "the device x cannot be saved"
    assert refusal(outgoing) == "There's a migration process in progress"


def test_what_could_not_be_begun_may_be_tried_again(outgoing: Outgoing) -> None:
    """A source that says for ever that a migration is in progress."""
    statuses: list[Status] = []
    outgoing.status.notify(statuses.append)
    for _ in range(2):
        outgoing.begin()
        with pytest.raises(ConfigError, match="no keys"):
            outgoing.migrate(Uri("tcp", host="192.0.2.1", port=1))
        assert outgoing.result().error_desc is not None
        assert outgoing.result().guest_alive == "source"
    assert statuses == [Status.SETUP, Status.FAILED] * 2


def test_a_notifier_is_called_before_the_work_of_a_state(outgoing: Outgoing) -> None:
    """Who is told of setup when it is over cannot prepare for it."""
    seen: list[tuple[Status, bool]] = []
    outgoing.status.notify(lambda status: seen.append((status, outgoing.coordinator is None)))
    outgoing.begin()
    assert seen == [(Status.SETUP, True)]
