"""What becomes of a guest of which its ends do not say where it is."""

from typing import Any

import pytest

from pipeline.cluster.ends import Ended
from pipeline.cluster.settling import Left, Word
from pipeline.result import Result
from protocol.commit import Step
from protocol.errors import MigrationError
from protocol.status import Status
from tests.pipeline.cluster.stage import (
    ARRIVED,
    CANCELLED_ONLY,
    ENDED,
    SESSION,
    UNKNOWN,
    Stage,
    record_there,
)

DAMAGED = Ended(begun=True, result=Result(status=Status.COMPLETED, self_check="2 pages are wrong"))


def end_of_source(stage: Stage, answer: object) -> None:
    """The first question about one that is not known."""
    asked = stage.hosts.take("end_of_source")
    assert asked.host == "a"
    asked.answer(answer)
    stage.turn()


@pytest.mark.parametrize(
    ("word", "state", "place"),
    [
        (Word(record_there(Step.STARTED), has_come=True), "arrived", "b"),
        (Word(record_there(Step.NOT_STARTED), has_come=False), "waiting", "a"),
        (Word(None, has_come=False), "waiting", "a"),
        (Word(None, has_come=True), "arrived", "b"),
    ],
)
@pytest.mark.parametrize("step", [Step.INTENT, None])
@pytest.mark.parametrize("here", [UNKNOWN, Ended(begun=True, words="killed"), CANCELLED_ONLY])
def test_one_that_is_unknown_is_resolved(
    stage: Stage, step: Step | None, here: Ended, word: Word, state: str, place: str
) -> None:
    """A guest that is moved again while it runs at the destination; a guess about one whose
    command was killed, or could not say where it is."""
    stage.both_end(here)
    assert stage.row().state == "running", "as long as it is not known"
    end_of_source(stage, Left(here.result, step))
    last = stage.hosts.take("last_word")
    assert last.host == "b"
    last.answer(word)
    stage.turn()
    settle = stage.hosts.take("settle_source")
    assert (settle.host, settle.arguments[1]) == ("a", word.record)
    assert stage.row().state == "running", "its guest may stand still yet"
    settle.answer(True)
    stage.turn()
    assert (stage.row().state, stage.row().place) == (state, place)


def test_a_result_that_comes_late_counts(stage: Stage) -> None:
    """An arrived guest whose place is ended, since its source's host was slow to say so."""
    stage.both_end(Ended(begun=True, words="its host is gone"))
    end_of_source(stage, Left(ARRIVED.result))
    assert stage.row().state == "arrived"
    outcome: Any = stage.hosts.take("discard").arguments[2]
    assert outcome["PAGEFERRY_OUTCOME"] == "arrived"


@pytest.mark.parametrize("question", ["end_of_source", "last_word", "settle_source"])
@pytest.mark.parametrize("answer", [None, MigrationError("it still runs")])
def test_one_that_stays_unknown_is_never_tried_again(
    stage: Stage, question: str, answer: Exception | None
) -> None:
    """A second copy, because a host did not answer, or answered too late."""
    stage.both_end(UNKNOWN)
    answers: dict[str, object] = {
        "end_of_source": Left(UNKNOWN.result, Step.INTENT),
        "last_word": Word(record_there(Step.STARTED), has_come=True),
        "settle_source": True,
    }  # fmt: skip
    for name in answers:
        asked = stage.hosts.take(name)
        if name == question:
            break
        asked.answer(answers[name])
        stage.turn()
    if answer is None:
        stage.turn(91)
        asked.answer(answers[question])
    else:
        asked.answer(answer)
    stage.turn()
    row = stage.row()
    assert (row.state, row.place, row.session) == ("unknown", "", SESSION)
    for _ in range(5):
        stage.turn(1000)
    begun = [one for one in stage.journal.attempts() if one.move == "one"]
    assert len(begun) == 1
    put_away = [one.arguments[0] for one in stage.hosts.asked if one.name == "discard"]
    assert begun[0].token not in put_away


@pytest.mark.parametrize(
    ("step", "state", "place"),
    [(Step.GIVEN, "arrived", "b"), (Step.OPEN, "waiting", "a"), (Step.KEPT, "waiting", "a")],
)
def test_a_record_of_the_source_that_says_it_is_believed(
    stage: Stage, step: Step, state: str, place: str
) -> None:
    """A guest that runs at the destination and is ended there, since its source was killed when all
    was done but its result; one that is asked for where it never was."""
    stage.both_end(Ended(begun=True, words="killed"))
    end_of_source(stage, Left(None, step))
    stage.hosts.take("settle_source").answer(True)
    stage.turn()
    assert (stage.row().state, stage.row().place) == (state, place)


@pytest.mark.parametrize(
    ("word", "lives", "there", "state", "reason"),
    [
        (Word(None, has_come=True), True, DAMAGED, "arrived", "2 pages are wrong"),
        (Word(record_there(Step.NOT_STARTED), has_come=False), False, ENDED, "lost", "killed"),
    ],
)
def test_what_is_wrong_with_it_is_said(
    stage: Stage, *, word: Word, lives: bool, there: Ended, state: str, reason: str
) -> None:
    """A damaged guest that counts as right; a dead one that is tried again."""
    stage.both_end(Ended(begun=True, words="killed"), there)
    end_of_source(stage, Left(None, None))
    stage.hosts.take("last_word").answer(word)
    stage.turn()
    stage.hosts.take("settle_source").answer(lives)
    stage.turn()
    assert (stage.row().state, stage.row().reason) == (state, reason)


def test_a_cancel_counts_while_it_is_asked_where_the_guest_is(stage: Stage) -> None:
    """One that is tried again although it was cancelled."""
    stage.both_end(UNKNOWN)
    stage.conductor.cancel("one")
    end_of_source(stage, Left(None, Step.KEPT))
    stage.hosts.take("settle_source").answer(True)
    stage.turn()
    assert (stage.row().state, stage.row().again) == ("cancelled", None)
