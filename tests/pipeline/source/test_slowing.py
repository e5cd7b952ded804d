"""A guest is never left slow, whatever fails; and what fails harms no migration."""

from dataclasses import dataclass, field

import pytest

from pipeline.records.record import AnyEffect, BoundSockets
from pipeline.source.slowing import Slowing
from protocol.errors import GuestError, MigrationError


@dataclass(eq=False)
class Means:
    """A Throttle that fails when it is told to."""

    how: str
    fails: set[str] = field(default_factory=set)
    taken: int = 0
    asked: list[str] = field(default_factory=list)

    def effects(self) -> tuple[AnyEffect, ...]:
        """One."""
        self.asked.append("effects")
        return (BoundSockets((f"/{self.how}",)),)

    def take(self, percent: int) -> None:
        """Half of it is done before it fails."""
        self.taken = percent
        if "take" in self.fails:
            raise GuestError(f"{self.how} does not work")

    def release(self) -> None:
        """All of it, or nothing."""
        if "release" in self.fails:
            raise GuestError(f"{self.how} stays")
        self.taken = 0


class Guest:
    """What has means."""

    def __init__(self, *means: Means) -> None:
        self.means = means

    def run_state(self) -> str:
        """It runs."""
        return "running"

    def throttles(self) -> tuple[Means, ...]:
        """Those; none that answer, where there are none."""
        if not self.means:
            raise GuestError("no answer")
        return self.means


def slowing(*means: Means) -> tuple[Slowing, list[AnyEffect]]:
    """Of a guest with those, and what is on record."""
    recorded: list[AnyEffect] = []
    slow = Slowing(Guest(*means), recorded.append, recorded.remove)  # type: ignore[arg-type]
    return slow, recorded


def test_what_is_done_is_on_record_once() -> None:
    """A record that grows with each period."""
    one = Means("one")
    slow, recorded = slowing(one)
    assert slow.take(20)
    assert slow.take(20)
    assert slow.take(30)
    assert recorded == [BoundSockets(("/one",))]
    assert (slow.percent, slow.most, slow.by, one.taken) == (30, 30, "one", 30)
    slow.release()
    assert (slow.percent, slow.most, one.taken) == (0, 30, 0)
    assert recorded == []


def test_the_next_means_are_taken_and_both_are_given_back() -> None:
    """Half of the first one, which nobody remembers."""
    one, other = Means("one", {"take"}), Means("other")
    slow, recorded = slowing(one, other)
    assert slow.take(20)
    assert len(recorded) == 2
    assert (slow.by, one.taken, other.taken) == ("other", 20, 20)
    slow.release()
    assert (one.taken, other.taken) == (0, 0)


def test_what_cannot_be_given_back_is_said_behind_all_that_can() -> None:
    """One that is stuck, and the other one stays as it is, too."""
    one, other = Means("one", {"take", "release"}), Means("other")
    slow, _ = slowing(one, other)
    assert slow.take(20)
    with pytest.raises(GuestError, match="one stays"):
        slow.release()
    assert other.taken == 0
    one.fails.clear()
    slow.release()
    assert one.taken == 0


def test_a_guest_that_does_not_answer_keeps_its_pace() -> None:
    """A migration that ends because of a question."""
    slow, recorded = slowing()
    assert not slow.take(20)
    assert not slow.take(30)
    assert (recorded, slow.percent, slow.by) == ([], 0, None)
    slow.release()


def test_a_record_that_cannot_be_written_forbids_it() -> None:
    """A guest that is slow, and nobody would know after a crash."""
    one = Means("one")

    def full(_: AnyEffect) -> None:
        raise MigrationError("no space left")

    slow = Slowing(Guest(one), full)  # type: ignore[arg-type]
    assert not slow.take(20)
    assert one.taken == 0
