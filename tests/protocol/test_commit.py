"""Who has the guest: each step on record before what it allows, and none twice."""

from collections.abc import Callable

import pytest

from protocol.commit import STEPS, DestinationCommit, SourceCommit, Step
from protocol.errors import LocalProtocolError, MigrationError


class Paper:
    """A record in memory."""

    def __init__(self, role: str) -> None:
        self._steps = STEPS[role]  # type: ignore[index]
        self.step = Step.OPEN
        self.full = False

    def change(self, old: Step, new: Step, reason: str = "") -> bool:
        """As a Keeper does."""
        if self.full:
            raise MigrationError("no space left on device")
        if self.step is not old or new not in self._steps[old]:
            return False
        self.step = new
        return True


@pytest.fixture(name="source")
def _source() -> tuple[SourceCommit, Paper]:
    paper = Paper("source")
    return SourceCommit(paper), paper


@pytest.fixture(name="there")
def _there() -> tuple[DestinationCommit, Paper]:
    paper = Paper("destination")
    return DestinationCommit(paper), paper


@pytest.mark.parametrize(
    ("answer", "guest", "step"),
    [
        (SourceCommit.given, "destination", Step.GIVEN),
        (SourceCommit.refused, "source", Step.KEPT),
    ],
)
def test_the_source_has_the_guest_until_its_intent_and_then_nobody_knows(
    source: tuple[SourceCommit, Paper],
    answer: Callable[[SourceCommit], None],
    guest: str,
    step: Step,
) -> None:
    """A guest that goes on at the source while it may run at the destination."""
    commit, paper = source
    assert commit.guest == "source"
    commit.intend()
    assert (commit.guest, paper.step) == ("unknown", Step.INTENT)
    answer(commit)
    assert (commit.guest, paper.step) == (guest, step)


def test_an_intent_that_cannot_be_kept_is_none(source: tuple[SourceCommit, Paper]) -> None:
    """A disk that is full, and a guest that stands still for that."""
    commit, paper = source
    paper.full = True
    with pytest.raises(MigrationError):
        commit.intend()
    assert commit.guest == "source"


def test_there_is_one_intent(source: tuple[SourceCommit, Paper]) -> None:
    """A second commit of a guest that is not here any more."""
    commit, _ = source
    commit.intend()
    commit.given()
    with pytest.raises(LocalProtocolError, match="the intent after step given"):
        commit.intend()


def test_a_commit_starts_the_guest_once(there: tuple[DestinationCommit, Paper]) -> None:
    """A guest that is started again by a commit that was repeated."""
    commit, paper = there
    commit.get_ready()
    commit.heard_commit()
    assert str(paper.step) == "committed"
    commit.started()
    assert str(paper.step) == "started"
    with pytest.raises(MigrationError, match="closed"):
        commit.heard_commit()


def test_nothing_starts_that_was_not_ready(there: tuple[DestinationCommit, Paper]) -> None:
    """A commit that is taken as an order whenever it comes."""
    commit, paper = there
    with pytest.raises(MigrationError, match="closed"):
        commit.heard_commit()
    assert paper.step is Step.OPEN


def test_nothing_starts_where_the_record_was_closed_meanwhile(
    there: tuple[DestinationCommit, Paper],
) -> None:
    """A guest that starts after its source was told that it does not."""
    commit, paper = there
    commit.get_ready()
    assert paper.change(Step.READY, Step.NOT_STARTED)
    with pytest.raises(MigrationError, match="closed"):
        commit.heard_commit()
    assert paper.step is Step.NOT_STARTED


def test_a_commit_that_cannot_be_kept_starts_nothing(
    there: tuple[DestinationCommit, Paper],
) -> None:
    """A guest that runs, of which nobody will know after a crash."""
    commit, paper = there
    commit.get_ready()
    paper.full = True
    with pytest.raises(MigrationError):
        commit.heard_commit()
    assert paper.step is Step.READY


@pytest.mark.parametrize("steps", range(3))
def test_a_refusal_closes_the_record_wherever_it_stands(
    there: tuple[DestinationCommit, Paper], steps: int
) -> None:
    """A record that stays open after a failure, and keeps the source from its guest."""
    commit, paper = there
    for step in (commit.get_ready, commit.heard_commit)[:steps]:
        step()
    commit.refuse("no")
    assert paper.step is Step.NOT_STARTED


def test_a_started_guest_is_not_refused(there: tuple[DestinationCommit, Paper]) -> None:
    """A definite no for a guest that runs."""
    commit, paper = there
    commit.get_ready()
    commit.heard_commit()
    commit.started()
    commit.refuse("late")
    assert paper.step is Step.STARTED
