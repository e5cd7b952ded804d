"""The reorder window: in order, once, and no more of it than allowed."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import RemoteProtocolError
from protocol.reorder import ReorderWindow


def _drain(window: ReorderWindow[str]) -> list[str]:
    out = []
    while window.head() is not None:
        out.append(window.advance())
    return out


@given(st.integers(1, 9), st.integers(0, 40), st.randoms(use_true_random=False))
def test_any_order_inside_the_window_comes_out_in_order_once(
    size: int, total: int, random: Random
) -> None:
    """A frame applied early, twice or never, whatever order the network chose."""
    window: ReorderWindow[str] = ReorderWindow(size)
    out: list[str] = []
    given_out: set[int] = set()
    while len(given_out) < total:
        allowed = range(1, min(window.applied + size, total) + 1)
        fresh = [seq for seq in allowed if seq not in given_out]
        if not fresh or random.random() < 0.3:
            out += _drain(window)
            continue
        seq = random.choice(fresh)
        assert window.add(seq, str(seq))
        given_out.add(seq)
        assert not window.add(random.choice(sorted(given_out)), "duplicate")
        assert len(window) == len(given_out) - window.applied <= size
    assert out + _drain(window) == [str(seq) for seq in range(1, total + 1)]


def test_the_first_copy_wins() -> None:
    """A late copy that replaces the one whose slot is already counted."""
    window: ReorderWindow[str] = ReorderWindow(4)
    assert window.add(2, "first")
    assert not window.add(2, "second")
    assert window.add(1, "one")
    assert _drain(window) == ["one", "first"]
    assert not window.add(2, "third")
    assert window.head() is None


@pytest.mark.parametrize("seq", [-1, 0, 6, 2**64 - 1])
def test_outside_the_window_is_refused(seq: int) -> None:
    """A peer that fills the memory with frames that nobody asked for."""
    window: ReorderWindow[str] = ReorderWindow(4)
    window.add(1, "one")
    _drain(window)
    assert window.add(5, "last")
    with pytest.raises(RemoteProtocolError, match=f"seq {seq} outside .* 1 applied, window 4"):
        window.add(seq, "no")
    assert len(window) == 1


def test_the_head_stays_until_it_is_applied() -> None:
    """A frame that counts as applied before it was written."""
    window: ReorderWindow[str] = ReorderWindow(4)
    window.add(1, "one")
    assert window.head() == window.head() == "one"
    assert window.applied == 0
    assert window.advance() == "one"
    assert window.applied == 1
