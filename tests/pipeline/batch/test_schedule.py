"""Who may begin: never more than is allowed, nobody for ever behind others, and room for all."""

from collections import Counter
from random import Random
from typing import Any

import pytest

from pipeline.batch.moves import Move
from pipeline.batch.plan import Plan
from pipeline.batch.schedule import Scheduler
from tests.pipeline.batch.plans import MIB, move, plan

HOSTS: dict[str, dict[str, Any]] = {name: {} for name in "abcdef"}


def scheduler(asked: Plan, moves: list[Move], on_link: int = 1000) -> Scheduler:
    """By memory, so that order is plain."""
    return Scheduler(asked, moves, lambda one: one.memory / MIB, lambda _: on_link)


def names(starts: list[Any]) -> list[str]:
    """Of moves that begin."""
    return [start.move.name for start in starts]


def check_limits(asked: Plan, running: dict[str, Any], on_link: int) -> None:
    """Of what runs now."""
    limits = asked.limits
    leaving = Counter(start.move.source for start in running.values())
    coming = Counter(start.destination for start in running.values())
    assert len(running) <= limits.cluster
    assert max(leaving.values(), default=0) <= min(limits.per_source, on_link)
    assert max(coming.values(), default=0) <= min(limits.per_destination, on_link)


@pytest.mark.parametrize("seed", range(40))
def test_all_begin_and_no_limit_is_exceeded(seed: int) -> None:
    """A limit that does not hold; a move that is forgotten where its destinations were full."""
    dice = Random(seed)
    limits = {
        "cluster": dice.randint(1, 9),
        "per-source": dice.randint(1, 4),
        "per-destination": dice.randint(1, 4),
    }
    asked, on_link = plan(HOSTS, limits=limits), dice.randint(1, 5)
    moves = []
    for number in range(dice.randint(1, 90)):
        source = dice.choice("abcdef")
        others = [name for name in "abcdef" if name != source]
        candidates = dice.sample(others, dice.randint(1, 5))
        size = dice.randint(1, 9) * MIB
        moves.append(move(f"g{number}", source, *candidates, memory=size))
    chosen, done, failed = scheduler(asked, moves, on_link), set(), Counter[str]()
    for now in range(2000):
        chosen.due(now)
        check_limits(asked, chosen.running, on_link)
        if not chosen.running and not chosen.waiting:
            break
        for name in dice.sample(sorted(chosen.running), min(2, len(chosen.running))):
            if dice.random() < 0.3 and failed[name] < 3:
                failed[name] += 1
                chosen.ended(name, arrived=False, again_s=now + dice.randint(1, 5))
            else:
                chosen.ended(name, arrived=True)
                done.add(name)
    assert done == {one.name for one in moves}


def test_priority_then_the_longest() -> None:
    """A large guest that is begun last, and holds up the end of all."""
    moves = [
        move("small", "a", "b"),
        move("large", "a", "b", memory=512 * MIB),
        move("urgent", "a", "b", priority=1, memory=MIB),
        move("elsewhere", "c", "b", memory=256 * MIB),
    ]
    limits = {"cluster": 1, "per-source": 1, "per-destination": 1}
    for order, expected in (
        ("longest-first", ["urgent", "large", "elsewhere", "small"]),
        ("shortest-first", ["urgent", "small", "elsewhere", "large"]),
        ("as-listed", ["urgent", "small", "large", "elsewhere"]),
    ):
        chosen, begun = scheduler(plan(HOSTS, limits=limits, order=order), moves), []
        while starts := chosen.due(0):
            begun += names(starts)
            chosen.ended(begun[-1], arrived=True)
        assert begun == expected, order


def test_one_that_is_stuck_does_not_hold_up_those_behind_it() -> None:
    """A queue whose head waits for a full host, and behind it others that could go."""
    asked = plan(HOSTS, limits={"cluster": 9, "per-source": 9, "per-destination": 1})
    moves = [move(f"to-b-{n}", "a", "b", priority=1) for n in range(3)] + [move("to-c", "a", "c")]
    assert names(scheduler(asked, moves).due(0)) == ["to-b-0", "to-c"]


def test_many_that_are_stuck_do_not_hide_one_that_is_not() -> None:
    """Guests that are told that no host has room, while there is one."""
    asked = plan({"a": {}, "b": {"memory": "100MiB"}, "c": {}})
    big = [move(f"big{number}", "a", "b", memory=200 * MIB) for number in range(40)]
    found = scheduler(asked, [*big, move("small", "a", "c", memory=MIB)])
    assert names(found.due(0)) == ["small"]


def test_room_of_one_that_is_not_known_is_kept_at_both_ends() -> None:
    """A guest that comes where another one may still be."""
    asked = plan({"a": {"memory": "0"}, "b": {"memory": "100MiB"}, "c": {}})
    moves = [move("one", "a", "b", memory=100 * MIB), move("back", "c", "a", memory=50 * MIB),
             move("other", "c", "b", memory=50 * MIB)]  # fmt: skip
    found = scheduler(asked, moves)
    assert names(found.due(0)) == ["one"]
    found.ended("one", arrived=None)
    assert found.due(1) == []


def test_room_is_taken_and_given_back() -> None:
    """A host onto which more memory goes than it has; room that a failure keeps."""
    asked = plan({"a": {}, "b": {"memory": 100 * MIB}})
    chosen = scheduler(asked, [move("one", "a", "b"), move("two", "a", "b")])
    assert names(chosen.due(0)) == ["one"]
    chosen.ended("one", arrived=False)
    assert names(chosen.due(0)) == ["two"]
    chosen.ended("two", arrived=True)
    assert chosen.due(0) == []


def test_who_leaves_makes_room() -> None:
    """Two full hosts of which one has to be left before the other one can be."""
    asked = plan({"a": {"memory": 0}, "b": {"memory": 64 * MIB}})
    moves = [move("there", "a", "b", priority=1), move("back", "b", "a", memory=32 * MIB)]
    chosen = scheduler(asked, moves)
    assert names(chosen.due(0)) == ["there"]
    chosen.ended("there", arrived=True)
    assert names(chosen.due(0)) == ["back"]


def test_a_retry_waits_for_its_time() -> None:
    """A guest that fails again and again, at once."""
    chosen = scheduler(plan(HOSTS), [move("one", "a", "b")])
    chosen.due(0)
    chosen.ended("one", arrived=False, again_s=20)
    assert chosen.next_retry_s == 20
    assert chosen.due(19.9) == []
    assert names(chosen.due(20)) == ["one"]


def test_a_retry_goes_to_another_host() -> None:
    """A guest that is tried again and again where it fails."""
    chosen = scheduler(plan(HOSTS), [move("one", "a", "b", "c")])
    tried = []
    for now in range(3):
        (start,) = chosen.due(now)
        tried.append(start.destination)
        chosen.ended("one", arrived=False, again_s=now + 1)
    assert tried == ["b", "c", "b"]


def test_limits_that_are_raised_count_at_once() -> None:
    """Guests that wait on although they might go."""
    moves = [move(f"g{n}", "a", "b", "c") for n in range(4)]
    chosen = scheduler(plan(HOSTS, limits={"per-source": 1}), moves)
    assert len(chosen.due(0)) == 1
    chosen.limits = chosen.limits.model_copy(update={"per_source": 3})
    chosen.wake_all()
    assert len(chosen.due(0)) == 2


def test_those_that_ran_before_are_known() -> None:
    """A guest that is moved twice behind a restart; a place that is given twice."""
    moves = [move(name, "a", "b") for name in ("done", "under way", "gone", "left")]
    chosen = scheduler(plan(HOSTS, limits={"per-destination": 2}), moves)
    chosen.arrived_before(moves[0], "b")
    chosen.adopt(moves[1], "b")
    assert chosen.withdraw("gone")
    assert not chosen.withdraw("gone")
    assert names(chosen.due(0)) == ["left"]
    assert set(chosen.running) == {"under way", "left"}
