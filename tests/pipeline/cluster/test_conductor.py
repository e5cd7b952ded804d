"""What is decided when ends answer, answer wrongly, late or not at all."""

from pathlib import Path
from typing import Any

from pipeline.cluster.ends import Ended, Look
from pipeline.result import Result
from protocol.errors import MigrationError
from protocol.status import Status
from tests.pipeline.cluster.stage import (
    ARRIVED,
    ENDED,
    FAILED,
    MOVES,
    Stage,
)


def test_one_arrives_and_then_the_other(stage: Stage) -> None:
    """A place that is not given to the next one."""
    stage.both_end(ARRIVED)
    assert stage.row().state == "arrived"
    assert stage.row().place == "b"
    assert stage.row("two").state == "waiting", "what waits there is put away first"
    stage.hosts.take("discard").answer(True)
    stage.turn()
    assert stage.row("two").state == "running"


def test_one_that_failed_is_tried_again_later(stage: Stage) -> None:
    """A retry without a pause, or for ever."""
    stage.both_end(FAILED)
    row = stage.row()
    assert (row.state, row.reason, row.place) == ("waiting", "no room", "a")
    assert row.again == stage.clock() + 20
    discard = stage.hosts.take("discard")
    assert discard.arguments[2]["PAGEFERRY_OUTCOME"] == "failed"  # type: ignore[index]
    discard.answer(True)
    stage.turn()
    assert stage.row("two").state == "running"
    stage.both_end(ARRIVED)
    stage.hosts.take("discard").answer(True)
    for tries in (2, 3, 4):
        stage.turn(200)
        assert stage.row().tries == tries
        stage.both_end(FAILED)
        stage.hosts.take("discard").answer(True)
    stage.turn(1000)
    assert stage.row().state == "failed"
    assert stage.conductor.is_over


def test_what_is_left_is_foreseen_by_what_has_arrived(stage: Stage) -> None:
    """A remaining time that is wrong in the same way from the first guest to the last."""
    stage.turn()
    before = stage.conductor.ahead().seconds
    stage.turn(1)
    assert stage.conductor.ahead().seconds < before - 0.9
    stage.listening()
    stage.clock.now_s += 100
    for _ in range(2):
        asked = stage.hosts.take("attend")
        took = Result(status=Status.COMPLETED, guest_alive="destination", total_time=1000)
        asked.answer(Ended(begun=True, result=took) if asked.host == "a" else ENDED)
    stage.turn()
    stage.hosts.take("discard").answer(True)
    assert stage.row().state == "arrived"
    assert stage.conductor.ahead().seconds > 99 > before


def test_a_host_that_is_lost_is_asked_again(stage: Stage) -> None:
    """An attempt that nobody waits for, since Dask has lost its task."""
    stage.listening()
    there, here = stage.hosts.take("attend"), stage.hosts.take("attend")
    here.answer(MigrationError("KilledWorker"))
    stage.turn()
    stage.turn(2.1)
    again = stage.hosts.take("forbid")
    assert again.host == "a"
    there.answer(ENDED)
    again.answer(ARRIVED)
    stage.turn()
    assert stage.row().state == "arrived"


def test_a_host_that_stays_away_leaves_it_unknown(stage: Stage) -> None:
    """A batch that waits for ever; a deadline that moves on with every answer that is none."""
    stage.listening()
    there, here = stage.hosts.take("attend"), stage.hosts.take("attend")
    there.answer(ENDED)
    here.answer(MigrationError("KilledWorker"))
    for _ in range(22):
        stage.turn(3.1)
        for asked in [one for one in stage.hosts.asked if one.name == "forbid"]:
            stage.hosts.asked.remove(asked)
            asked.answer(MigrationError("no disk"))
    stage.turn()
    stage.hosts.take("end_of_source")
    here.answer(ARRIVED)
    stage.turn(91)
    assert stage.row().state == "unknown"


def test_hosts_that_are_not_there_are_waited_for_once(stage: Stage) -> None:
    """A task that a scheduler keeps for a worker that never comes back."""
    stage.hosts.hanging.add("a")
    stage.listening()
    stage.conductor.attending.look_at_hosts({"b", "c"})
    stage.turn(30)
    stage.conductor.attending.look_at_hosts({"b", "c"})
    stage.turn(31)
    assert next(iter(stage.conductor.attending.attempts.values())).here is not None


def test_a_host_that_hangs_is_waited_for_as_one_that_is_gone(stage: Stage) -> None:
    """One that Dask takes for alive for minutes, and an attempt that waits for it for an hour."""
    stage.hosts.hanging.add("b")
    stage.turn()
    stage.turn(10)
    stage.turn(10)
    assert [one.name for one in stage.hosts.asked] == ["attend", "look"], "it is asked once"
    stage.turn(59)
    assert stage.row().state == "running"
    stage.turn(2)
    assert (stage.row().state, stage.row().reason) == ("waiting", "b is gone")


def test_a_host_that_answers_late_is_there(stage: Stage) -> None:
    """An attempt that is given up although its ends go on."""
    stage.hosts.hanging |= {"a", "b"}
    stage.listening()
    stage.turn(10)
    stage.turn(10)
    for _ in range(2):
        stage.hosts.take("look").answer(Look())
    stage.turn(61)
    assert stage.row().state == "running"


def test_a_destination_that_never_listens_was_no_attempt_of_the_source(stage: Stage) -> None:
    """A guest whose place is not known because a port was taken."""
    stage.turn()
    stage.hosts.take("attend").answer(Ended(begun=False, words="somebody listens there already"))
    stage.turn()
    assert stage.row().reason == "somebody listens there already"
    assert stage.row().place == "a"


def test_cancel_and_timeout(stage: Stage) -> None:
    """A cancelled guest that is tried again; one that hangs for ever."""
    stage.listening()
    stage.conductor.cancel("one")
    stop = stage.hosts.take("stop")
    assert stop.host == "a"
    cancelled = Result(status=Status.CANCELLED, guest_alive="source", error_desc="cancelled")
    there, here = stage.hosts.take("attend"), stage.hosts.take("attend")
    here.answer(Ended(begun=True, result=cancelled))
    there.answer(ENDED)
    stage.turn()
    stage.hosts.take("discard").answer(True)
    assert stage.hosts.take("stop").host == "b", "it would wait for ever"
    assert (stage.row().state, stage.row().reason) == ("cancelled", "cancelled by the user")
    stage.listening()
    for seconds in (3601, 2.1, 2.1):
        stage.turn(seconds)
        assert stage.hosts.take("stop").host == "a", "until it is heard"


def test_an_end_that_does_not_stop_is_not_waited_for(stage: Stage) -> None:
    """A batch that hangs because one command does, whose host is well."""
    stage.listening()
    stage.conductor.cancel("one")
    stage.turn(89)
    assert not [one for one in stage.hosts.asked if one.name == "end_of_source"]
    stage.turn(2)
    assert stage.hosts.take("end_of_source").host == "a"


def test_a_guest_that_came_all_the_same_is_not_tried_again(stage: Stage) -> None:
    """A second copy of one that runs where nobody thought that it did."""
    stage.both_end(FAILED)
    assert stage.row().state == "waiting"
    stage.hosts.take("discard").answer(False)
    stage.turn(1000)
    row = stage.row()
    assert (row.state, row.place, row.tries) == ("unknown", "", 1)
    assert row.reason == "a guest runs at b that was not to have come"


def test_one_that_is_cancelled_before_it_begins(stage: Stage) -> None:
    """A cancelled guest that is tried again, or whose destination waits for ever."""
    stage.turn()
    stage.conductor.cancel("one")
    assert stage.hosts.take("stop").host == "b"
    stage.listening()
    assert stage.hosts.take("attend").host == "b"
    assert not [one for one in stage.hosts.asked if one.name == "attend"], "nothing is sent"
    stage.turn(2.1)
    assert stage.hosts.take("stop").host == "b"
    (token,) = stage.conductor.attending.attempts
    stage.conductor.attending._ended(token, "destination", ENDED)
    stage.turn()
    assert (stage.row().state, stage.row().again) == ("cancelled", None)


def test_one_that_is_cancelled_while_what_it_left_is_put_away(stage: Stage) -> None:
    """A retry that was on its way already."""
    stage.both_end(FAILED)
    assert stage.row().state == "waiting"
    stage.conductor.cancel("one")
    stage.hosts.take("discard").answer(True)
    stage.turn(1000)
    assert (stage.row().state, stage.row().tries) == ("cancelled", 1)


def test_a_conductor_that_is_killed_is_taken_over_from(tmp_path: Path, stage: Stage) -> None:
    """An attempt that is begun a second time; one that nobody waits for."""
    stage.listening()
    (token,) = stage.conductor.attending.attempts
    (row,) = stage.journal.attempts()
    later = Stage(tmp_path, MOVES)
    later.conductor.adopt(row, 1)
    later.turn()
    asked = [later.hosts.take("forbid"), later.hosts.take("forbid")]
    assert {one.host for one in asked} == {"a", "b"}
    assert all(one.arguments[0] == token for one in asked)
    for one in asked:
        one.answer(ARRIVED if one.host == "a" else ENDED)
    later.turn()
    assert later.row().state == "arrived"
    later.journal.close()


def test_an_end_that_went_with_its_host_is_tried_again(tmp_path: Path, stage: Stage) -> None:
    """A guest that is taken for cancelled since `batch run` was killed; a try that this cost."""
    cancelled = Result(status=Status.CANCELLED, guest_alive="source", error_desc="cancelled")
    stage.both_end(Ended(begun=True, result=cancelled))
    stage.hosts.take("discard").answer(True)
    assert (stage.row().state, stage.row().reason) == ("waiting", "its host ended")
    stage.turn()
    later = Stage(tmp_path, MOVES)
    later.conductor.adopt(later.journal.attempts()[-1], 1)
    later.turn()
    for one in (later.hosts.take("forbid"), later.hosts.take("forbid")):
        one.answer(Ended(begun=True, result=cancelled) if one.host == "a" else ENDED)
    later.turn()
    assert (later.row("two").state, later.row("two").tries) == ("waiting", 0)
    later.journal.close()


def test_shares_are_told_to_those_that_run(tmp_path: Path, stage: Stage) -> None:
    """A link that one migration has for itself, and that stays half empty."""
    folder = tmp_path / "wide"
    folder.mkdir()
    wide = Stage(folder, MOVES, bandwidth=1000)
    wide.conductor.limit("cluster", 2)
    wide.turn()
    first, second = wide.conductor.attending.attempts.values()
    assert (first.share, second.share) == (500, 500)
    told = {"token": first.token, "role": "destination", "event": "listening"}
    wide.conductor.attending.heard({**told, "socket_address": "tcp:b:1"})
    order: Any = wide.hosts.asked[-1].arguments[0]
    assert (order.role, order.config["parameters"]["max-bandwidth"]) == ("source", 500)
    for one in list(wide.hosts.asked):
        if one.name == "attend" and one.arguments[0].token == second.token:  # type: ignore[attr-defined]
            one.answer(Ended(begun=False, words="no"))
    wide.turn()
    wide.hosts.take("discard").answer(True)
    wide.turn()
    steer = wide.hosts.take("steer")
    assert steer.arguments == (first.token, 1000)
    wide.journal.close()
