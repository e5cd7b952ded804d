"""Scans of memory: each range once, and with the worker that knows it as long as that one can."""

from pipeline.source.scans import SCAN_PAGES, Scans

BLOCKS = (4 * SCAN_PAGES, SCAN_PAGES + 1)
RANGES = 6


def scan_all(scans: Scans, workers: list[int]) -> dict[tuple[int, int], int]:
    """Range → the worker that got it, where the workers take turns."""
    scans.plan(BLOCKS)
    got = {}
    for turn in range(RANGES):
        job = scans.give(workers[turn % len(workers)])
        got[job.block, job.first] = workers[turn % len(workers)]
        scans.heard(job.job)
    assert scans.all_done
    return got


def test_a_range_comes_back_to_its_worker() -> None:
    """Memory mapped by every worker anew, in the downtime."""
    scans = Scans()
    first = scan_all(scans, [0, 1])
    assert len(first) == RANGES
    assert scan_all(scans, [1, 0]) == first


def test_nobody_waits_for_a_busy_worker() -> None:
    """Ranges that only one worker may scan, while the others have nothing to do."""
    scans = Scans()
    scan_all(scans, [0, 1])
    assert scan_all(scans, [2]) == dict.fromkeys(scan_all(scans, [2]), 2)


def test_what_a_dead_worker_had_is_scanned() -> None:
    """Pages that nobody compares."""
    scans = Scans()
    scan_all(scans, [0, 1])
    scans.plan(BLOCKS)
    lost = scans.give(0)
    scans.lose_worker(0)
    again = [scans.give(1) for _ in range(RANGES)]
    assert (lost.block, lost.first) in {(job.block, job.first) for job in again}
    assert not scans.are_waiting
