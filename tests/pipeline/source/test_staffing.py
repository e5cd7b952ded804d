"""How many workers `auto` takes, by how busy they are."""

from pipeline.source.codec_choice import Totals
from pipeline.source.staffing import FIRST, LOOK_NS, Staffing
from pipeline.source.statistics import Busy


def worked(staffing: Staffing, seconds: int, work: float) -> int:
    """The workers after so long, where so many would be busy if there were enough."""
    now_ns, busy_ns = LOOK_NS, 0
    for _ in range(seconds * 1_000_000_000 // LOOK_NS):
        busy_ns += int(min(work, staffing.wanted) * 0.95 * LOOK_NS)
        now_ns += LOOK_NS
        staffing.tick(now_ns, Totals(busy=Busy(compress=busy_ns), workers=staffing.wanted))
    return staffing.wanted


def test_a_few_to_begin_with() -> None:
    """A process for each of 64 processors, for a thin link."""
    assert Staffing(64).wanted == FIRST
    assert Staffing(2).wanted == 2


def test_as_many_as_there_is_work_for() -> None:
    """Cores that stand idle while all workers are busy; or many workers that wait."""
    assert worked(Staffing(64), 10, work=100) == 64
    assert 10 <= worked(Staffing(64), 30, work=10) <= 21
    assert worked(Staffing(64), 30, work=0.2) == 1
    assert worked(Staffing(2), 30, work=100) == 2


def test_it_comes_to_rest() -> None:
    """A worker that is started and let go in turn, for ever."""
    for work in (1.5, 3, 5, 9, 17):
        staffing = Staffing(64)
        worked(staffing, 60, work)
        settled = staffing.wanted
        assert {worked(staffing, 1, work) for _ in range(20)} == {settled}


def test_a_rest_says_nothing() -> None:
    """Workers that are let go because the guest wrote nothing."""
    staffing = Staffing(4)
    for second in range(1, 20):
        staffing.tick(second * 1_000_000_000, Totals(workers=4))
        staffing.rest()
    assert staffing.wanted == 4
