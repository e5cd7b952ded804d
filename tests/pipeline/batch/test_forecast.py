"""The dry run: times that follow from links, shares and limits; who can never go."""

import pytest

from pipeline.batch.forecast import OVERHEAD_S, forecast, link_limit
from pipeline.batch.moves import bandwidth
from pipeline.batch.outcome import Outcome, backoff_s, may_retry, outcome_of
from pipeline.batch.plan import Window
from pipeline.batch.prediction import FULL_SPEED, memory_to_send, seconds
from pipeline.batch.shares import Shares
from pipeline.batch.window import is_open
from pipeline.result import Result
from protocol.status import Status
from tests.pipeline.batch.plans import MIB, move, plan

LINK = 32 * MIB
HOSTS = {"a": {"link": LINK}, "b": {"link": LINK}, "c": {"link": LINK}}


def test_one_takes_what_its_link_takes() -> None:
    """A prediction that forgets the ratio, or the link."""
    one = move("one", "a", "b", codec="none")
    found = forecast(plan(HOSTS), [one])
    assert found.seconds == pytest.approx(OVERHEAD_S + 2)
    assert forecast(plan({"a": {}, "b": {}}), [one]).seconds == pytest.approx(
        OVERHEAD_S + 64 * MIB / FULL_SPEED
    )
    assert forecast(plan(HOSTS, bandwidth=LINK // 2), [one]).seconds == pytest.approx(
        OVERHEAD_S + 4
    )


def test_two_share_a_link_and_the_last_one_gets_it_back() -> None:
    """A share that is not handed back when one ends."""
    moves = [
        move("one", "a", "b", codec="none"),
        move("two", "a", "c", codec="none", memory=32 * MIB),
    ]
    ends = {one.move.name: one.ended_s for one in forecast(plan(HOSTS), moves).foreseen}
    assert ends["two"] == pytest.approx(OVERHEAD_S + 2)
    assert ends["one"] == pytest.approx(OVERHEAD_S + 3)


def test_what_a_guest_dirties_is_sent_again() -> None:
    """M / (1 - d/m); one that dirties faster than it is sent has an end, too."""
    assert memory_to_send(100, 0, 10) == 100
    assert memory_to_send(100, 5, 10) == pytest.approx(200)
    assert memory_to_send(100, 20, 10) == 800
    assert seconds(64 * MIB, 0, "zlib", None) == pytest.approx(64 * MIB / FULL_SPEED)


def test_full_hosts_are_found_before_anything_begins() -> None:
    """Two guests that wait for each other for ever."""
    hosts = {"a": {"memory": 0}, "b": {"memory": 0}}
    moves = [move("there", "a", "b"), move("back", "b", "a")]
    assert {one.name for one in forecast(plan(hosts), moves).stuck} == {"there", "back"}
    hosts["b"]["memory"] = 64 * MIB
    assert forecast(plan(hosts), moves).stuck == []


def test_concurrency_by_what_fills_a_link() -> None:
    """One stream on a link that four would fill, or a hundred on one that is full."""
    asked = plan(HOSTS, concurrency="auto")
    assert link_limit(asked, lambda: LINK / 4)("a") == 4
    assert link_limit(asked, lambda: LINK * 2)("a") == 1
    assert link_limit(plan(HOSTS, concurrency=3), lambda: 1)("a") == 3
    assert link_limit(plan(HOSTS), lambda: 1)("a") > 1000


def test_shares_are_equal_parts_of_the_narrower_link() -> None:
    """More on a link than it carries."""
    shares = Shares({"a": 100, "b": 10, "c": 0})
    shares.add("one", "a", "b")
    assert shares.of("one") == 10
    for name in ("two", "three"):
        shares.add(name, "a", "c")
    assert [shares.of(name) for name in ("one", "two", "three")] == [10, 33, 33]
    assert shares.beside("a", "c") == {"one", "two", "three"}
    shares.remove("three")
    assert shares.of("two") == 50
    shares.add("free", "c", "c")
    assert shares.of("free") is None


SOURCE = Result(status=Status.COMPLETED, guest_alive="destination")
FAILED = Result(status=Status.FAILED, guest_alive="source", error_desc="the link is gone")


@pytest.mark.parametrize(
    ("source", "there", "expected"),
    [
        (SOURCE, None, Outcome("arrived")),
        (SOURCE, Result(self_check="clean"), Outcome("arrived")),
        (SOURCE, Result(self_check="3 pages differ"), Outcome("arrived", "3 pages differ")),
        (FAILED, None, Outcome("failed", "the link is gone")),
        (FAILED, Result(error_desc="no room"), Outcome("failed", "no room")),
        (Result(status=Status.CANCELLED, guest_alive="source", error_desc="cancelled"), None,
         Outcome("cancelled", "cancelled")),
        (Result(status=Status.FAILED, guest_alive="unknown", session="5", error_desc="no answer"),
         None, Outcome("unknown", "no answer", "5")),
        (Result(status=Status.FAILED, guest_alive="none", error_desc="it died"), None,
         Outcome("lost", "it died")),
        (None, SOURCE, Outcome("unknown", "killed")),
        (Result(status=Status.CANCELLED, error_desc="cancelled"), None,
         Outcome("unknown", "cancelled")),
        (Result(status=Status.COMPLETED), None, Outcome("arrived")),
    ],
)  # fmt: skip
def test_outcomes(source: Result | None, there: Result | None, expected: Outcome) -> None:
    """A guest that is taken for one that stayed, and moved again."""
    assert outcome_of(source, "killed", there) == expected


def test_a_guest_may_have_a_limit_of_its_own() -> None:
    """A share of the link that lifts what the guest's configuration forbids."""
    limited = move("one", "a", "b", max_bandwidth=100)
    assert [bandwidth(limited, share) for share in (None, 50, 200)] == [100, 50, 100]
    assert [bandwidth(move("two", "a", "b"), share) for share in (None, 50)] == [None, 50]
    asked = plan({"a": {"link": "100MiB"}, "b": {}})
    alone = forecast(asked, [move("one", "a", "b", max_bandwidth=1 << 20)]).seconds
    assert alone > 10 * forecast(asked, [move("one", "a", "b")]).seconds


def test_retries_end() -> None:
    """A guest that is tried for ever, or for a reason that stays."""
    assert may_retry("no room", 1, 1, ())
    assert not may_retry("no room", 2, 1, ())
    assert not may_retry("no room there", 1, 3, ("no room",))
    assert [backoff_s(tries, 20, 2) for tries in (1, 2, 3)] == [20, 40, 80]


def test_the_window_may_span_midnight() -> None:
    """A night that ends at noon."""
    hour = 3600
    night = Window(opens="22:00", closes="06:00")
    assert [is_open(night, at * hour) for at in (21, 22, 24, 29, 30)] == [
        False, True, True, True, False,
    ]  # fmt: skip
    assert [is_open(Window(opens="08:30", closes="09:00"), at * hour) for at in (8, 8.5, 9)] == [
        False, True, False,
    ]  # fmt: skip
    assert is_open(None, 0)
