"""The decision after a round, and the bandwidth that it is made of."""

import pytest

from pipeline.source.rounds import HOPELESS_ROUNDS, FixedParts, Rounds, Verdict, Windows
from protocol.errors import NotConverging

MIB = 1 << 20
MS = 1_000_000
SEND, SWITCH = Verdict.SEND, Verdict.SWITCH_OVER
NOTHING = FixedParts()
HUNDRED = FixedParts(scan_ms=20, verify_ms=30, devices_ms=50)

SITUATIONS = [
    # limit ms, bandwidth bytes/ms, fixed parts, pending bytes, verdict, expected downtime ms
    (300, 1000, NOTHING, 299_999, SWITCH, 299.999),
    (300, 1000, NOTHING, 300_000, SEND, 300),
    (300, 1000, NOTHING, 900_000, SEND, 900),
    (300, 1000, HUNDRED, 199_999, SWITCH, 299.999),
    (300, 1000, HUNDRED, 200_000, SEND, 300),
    (300, 1000, HUNDRED, 0, SWITCH, 100),
    (100, 1000, HUNDRED, 1, SEND, 100.001),
    (50, 1000, HUNDRED, 1, SEND, 100.001),
    (50, 1000, HUNDRED, 0, SWITCH, 100),
    (0, 1000, NOTHING, 1, SEND, 0.001),
    (0, 1000, NOTHING, 0, SWITCH, 0),
    (300, 0, NOTHING, 1, SEND, 300),  # nothing applied yet: nothing is known
    (300, 0, NOTHING, 0, SWITCH, 300),
]


@pytest.mark.parametrize(
    ("limit", "bandwidth", "fixed", "pending", "verdict", "expected_ms"), SITUATIONS
)
def test_the_verdict(
    limit: float,
    bandwidth: float,
    fixed: FixedParts,
    pending: int,
    verdict: Verdict,
    expected_ms: float,
) -> None:
    """A downtime over its limit; rounds without end where there is nothing left to send."""
    rounds = Rounds(limit)
    assert rounds.decide(pending, bandwidth, fixed) is verdict
    assert rounds.expected_downtime_ms == pytest.approx(expected_ms)


def test_max_size_is_never_negative() -> None:
    """A budget below nothing, which makes any comparison with it true or false at will."""
    assert Rounds(50).max_size(1000, HUNDRED) == 0
    assert Rounds(300).max_size(1000, HUNDRED) == 200_000


def test_before_anything_is_known_the_limit_is_expected() -> None:
    """A figure for the user that was made out of nothing."""
    assert Rounds(250).expected_downtime_ms == 250


def test_the_limit_can_change_while_it_runs() -> None:
    """A new limit that only the next migration heeds."""
    rounds = Rounds(10)
    assert rounds.decide(100_000, 1000, NOTHING) is SEND
    rounds.downtime_limit_ms = 200
    assert rounds.decide(100_000, 1000, NOTHING) is SWITCH


def test_ten_hopeless_rounds_name_the_limit_that_would_do() -> None:
    """A migration that goes on for ever, or gives up without saying what would help."""
    rounds = Rounds(80)
    for _ in range(HOPELESS_ROUNDS - 1):
        assert rounds.decide(50_000, 1000, HUNDRED) is SEND
    with pytest.raises(NotConverging) as caught:
        rounds.decide(50_000, 1000, HUNDRED)
    assert str(caught.value) == (
        "not converging: scan 20 ms, verification 30 ms and device state 50 ms alone exceed"
        " the downtime-limit of 80 ms; 151 ms would do, with 50 ms for the last pages"
    )


@pytest.mark.parametrize("pending", [50_000, 50_400, 50_600])
def test_the_limit_that_is_named_does(pending: int) -> None:
    """Advice that fails: with the named limit the same round would not switch over either."""
    rounds = Rounds(80)
    for _ in range(HOPELESS_ROUNDS - 1):
        rounds.decide(pending, 1000, HUNDRED)
    with pytest.raises(NotConverging, match="would do") as caught:
        rounds.decide(pending, 1000, HUNDRED)
    named = float(str(caught.value).rsplit("; ", 1)[1].split()[0])
    assert Rounds(named).decide(pending, 1000, HUNDRED) is SWITCH


def test_rounds_without_bandwidth_or_with_a_budget_do_not_count_as_hopeless() -> None:
    """A slow start, or a busy guest, taken for a limit that cannot be met."""
    rounds = Rounds(80)
    for _ in range(3 * HOPELESS_ROUNDS):
        assert rounds.decide(MIB, 0, HUNDRED) is SEND
        assert rounds.decide(MIB, 1000, FixedParts(devices_ms=79)) is SEND


def test_fixed_parts_add_up() -> None:
    """A part of the downtime that the estimate forgets."""
    assert HUNDRED.total_ms == 100


def test_the_first_window_is_the_bandwidth_and_later_ones_are_smoothed() -> None:
    """A bandwidth that starts at nothing and creeps up, or jumps with every window."""
    windows = Windows(0)
    assert (windows.bandwidth, windows.mbps) == (0, -1)
    windows.add(applied_bytes=100_000, wire_bytes=25_000)
    windows.tick(100 * MS, waiting=True)
    assert windows.bandwidth == 1000
    assert windows.mbps == pytest.approx(2.0)
    windows.add(applied_bytes=400_000)
    windows.tick(300 * MS, waiting=True)
    assert windows.bandwidth == pytest.approx(1000 + 0.3 * (2000 - 1000))
    assert windows.mbps == 0


def test_a_window_lasts_100_ms_at_least() -> None:
    """A bandwidth out of a millisecond in which a whole queue was acknowledged."""
    windows = Windows(0)
    windows.add(applied_bytes=1000)
    windows.tick(100 * MS - 1, waiting=True)
    assert windows.bandwidth == 0
    windows.add(applied_bytes=1000)
    windows.tick(200 * MS, waiting=True)
    assert windows.bandwidth == 10


def test_a_window_in_which_nothing_was_out_changes_nothing() -> None:
    """A pause between two rounds that makes the bandwidth forget, and the round seem endless."""
    windows = Windows(0)
    windows.add(applied_bytes=100_000)
    windows.tick(100 * MS, waiting=True)
    for tenth in range(2, 30):
        windows.tick(tenth * 100 * MS, waiting=False)
    assert windows.bandwidth == 1000
    windows.add(applied_bytes=100_000)
    windows.tick(3000 * MS, waiting=True)
    assert windows.bandwidth == 1000, "the windows without progress were counted in"


def test_a_thin_link_is_not_taken_for_a_fast_one() -> None:
    """Frames that come one by one, and a bandwidth out of the moments in which one came."""
    windows = Windows(0)
    for tenth in range(1, 31):
        if tenth % 10 == 0:
            windows.add(applied_bytes=100_000)
        windows.tick(tenth * 100 * MS, waiting=True)
    assert windows.bandwidth == 100
