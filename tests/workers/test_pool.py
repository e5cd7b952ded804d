"""A pool of real workers: up, told, heard, broken, ended, and nothing of it left."""

import multiprocessing
import os
import select
import signal
from functools import partial
from pathlib import Path
from time import monotonic_ns

import psutil
import pytest

from protocol.errors import Cancelled, GuestError, IntegrityError, WorkerError
from tests.workers import bodies
from tests.workers.driving import (
    PATIENCE_MS,
    PATIENCE_S,
    Context,
    hear,
    hear_from,
    own,
    pid,
    started,
)
from tests.workers.memories import memory_file
from workers.memory import PassedFd
from workers.messages import Checked, Grant, Up
from workers.pool import Loss, Pool
from workers.watch import ASK_NS, SILENCE_NS


def test_workers_come_up_answer_and_end(context: Context, folder: Path) -> None:
    """An answer that is counted for another worker; processes, sockets or folders that stay."""
    ticks: list[int] = []
    with started(context, bodies.obedient, own, 3, lambda: ticks.append(1)) as pool:
        assert len(ticks) > 3, "the peer heard nothing while workers were started"
        pids = {pid(pool, worker) for worker in pool.workers}
        assert pool.workers == [0, 1, 2]
        assert len(pids) == 3
        for worker in pool.workers:
            pool.send(worker, Grant([worker, 10]))
            assert hear_from(pool, Checked) == (worker, Checked(worker + 10, b""))
        pool.broadcast(Grant([1]))
        assert {hear_from(pool, Checked)[0] for _ in pool.workers} == {0, 1, 2}
        assert pool.losses(monotonic_ns()) == []
    assert not any(psutil.pid_exists(pid) for pid in pids)
    assert not list(folder.iterdir())


def test_stop_is_idempotent_and_works_before_start(context: Context, folder: Path) -> None:
    """A second stop, in the way out of an error, that hides the first one."""
    pool = Pool(context, "test")
    assert list(folder.iterdir())
    pool.stop()
    pool.stop()
    assert not list(folder.iterdir())


def test_the_folder_of_the_sockets_is_ours_alone(context: Context, folder: Path) -> None:
    """Another user who gives our workers jobs."""
    with started(context, bodies.obedient, own):
        (made,) = folder.iterdir()
        assert made.stat().st_mode & 0o777 == 0o700


def test_a_killed_worker_is_named(context: Context) -> None:
    """A migration that waits for ever for what a dead worker was given."""
    with started(context, bodies.obedient, own, count=2) as pool:
        victim = pid(pool, 1)
        os.kill(victim, signal.SIGKILL)
        assert has_lost(pool)
        (loss,) = pool.losses(monotonic_ns())
        assert loss == (1, f"test worker 1 (pid {victim}) died, exit code -9")
        assert psutil.pid_exists(pid(pool, 0))


def test_another_one_takes_the_place_of_a_lost_one(context: Context) -> None:
    """A migration that goes on with fewer workers, or hears the dead one's last words."""
    with started(context, bodies.obedient, own, count=2) as pool:
        pool.send(1, Grant([1]))
        assert pool.socket.poll(PATIENCE_MS)
        os.kill(pid(pool, 1), signal.SIGKILL)
        assert has_lost(pool)
        pool.replace(pool.losses(monotonic_ns())[0], nothing)
        assert pool.workers == [0, 2]
        assert hear_from(pool, Up)[0] == 2, "nothing of the old one is heard any more"
        pool.send(2, Grant([1, 2]))
        assert hear_from(pool, Checked) == (2, Checked(3, b""))
        assert pool.losses(monotonic_ns()) == []


def test_a_worker_that_is_stopped_is_killed_and_replaced(context: Context) -> None:
    """A worker that hangs, waited for for ever; one that wakes up later and goes on writing."""
    with started(context, bodies.obedient, own, count=2) as pool:
        victim = psutil.Process(pid(pool, 1))
        os.kill(victim.pid, signal.SIGSTOP)
        began = monotonic_ns()
        pool.ask(began + ASK_NS)
        hear_pong(pool)
        (loss,) = pool.losses(began + ASK_NS + SILENCE_NS + 1)
        assert loss == (1, f"test worker 1 (pid {victim.pid}) hangs: silent for 3 s")
        pool.replace(loss, nothing)
        assert not victim.is_running()
        assert hear_from(pool, Up)[0] == 2


def test_many_lost_workers_are_no_accident(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers that are started and killed for as long as the migration lasts."""
    monkeypatch.setattr("workers.pool.REPLACEMENTS", 1)
    with started(context, bodies.obedient, own) as pool:
        pool.replace(Loss(0, "it died"), nothing)
        assert hear_from(pool, Up)[0] == 1
        with pytest.raises(WorkerError, match="it died again; 2 test workers were lost"):
            pool.replace(Loss(1, "it died again"), nothing)


def test_who_is_interrupted_while_a_worker_starts_leaves_none(context: Context) -> None:
    """A cancel, or a peer that fails, at that moment: a process that nobody knows."""

    def cancel() -> None:
        raise Cancelled("cancelled")

    with pytest.raises(Cancelled), started(context, bodies.obedient, own, tick=cancel):
        pytest.fail("it is up")
    assert not [one for one in multiprocessing.active_children() if one.name.startswith("test")]


def nothing() -> None:
    """A tick."""


def has_lost(pool: Pool) -> bool:
    """Whether a worker ends in time."""
    return bool(select.select([pool.ended], [], [], PATIENCE_S)[0])


def hear_pong(pool: Pool) -> None:
    """Take in the answer of the one worker that gives it."""
    assert pool.socket.poll(PATIENCE_MS)
    assert list(pool.receive()) == []


def _start_and_grant(context: Context, failing: partial[bodies.Failing]) -> None:
    with started(context, bodies.failing, failing) as pool:
        pool.broadcast(Grant([1]))
        hear(pool, Checked)


@pytest.mark.parametrize(
    ("kind", "raised"),
    [("GuestError", GuestError), ("IntegrityError", IntegrityError), ("OSError", WorkerError)],
)
@pytest.mark.parametrize("at_once", [True, False])
def test_an_error_arrives_as_its_class(
    context: Context, kind: str, raised: type[Exception], at_once: bool
) -> None:
    """A guest that vanished, told as a worker that died; a reason that got lost on the way."""
    failing = partial(bodies.Failing, kind=kind, reason="gone", at_once=at_once)
    with pytest.raises(raised) as caught:
        _start_and_grant(context, failing)
    assert (caught.type, str(caught.value)) == (raised, "test worker 0: gone")


def test_our_own_bug_arrives_with_the_name_of_its_error(context: Context) -> None:
    """A bare word such as a key that was not found, without a hint what happened."""
    failing = partial(bodies.Failing, kind="ValueError", reason="odd", at_once=True)
    with (
        pytest.raises(WorkerError, match="test worker 0: ValueError: odd"),
        started(context, bodies.failing, failing),
    ):
        pytest.fail("it is up")


def test_a_workers_own_word_comes_before_its_death(context: Context) -> None:
    """ "Died, exit code 1" where the worker said what was wrong with the guest."""
    failing = partial(bodies.Failing, kind="GuestError", reason="gone", at_once=False)
    with started(context, bodies.failing, failing) as pool:
        pool.broadcast(Grant([1]))
        assert has_lost(pool)
        with pytest.raises(GuestError, match="gone"):
            pool.losses(monotonic_ns())


def test_a_worker_that_does_not_come_up_is_not_waited_for(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A setup that hangs for ever."""
    monkeypatch.setattr("workers.pool.START_SECONDS", 0.2)
    with (
        pytest.raises(WorkerError, match=r"test worker 0 .* hangs: silent for 0.2 s"),
        started(context, bodies.never_up, own),
    ):
        pytest.fail("it is up")


def test_a_worker_that_does_not_listen_is_killed(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cancel that takes as long as the slowest worker likes."""
    monkeypatch.setattr("workers.pool.STOP_SECONDS", 0.1)
    with started(context, bodies.deaf, own, count=2) as pool:
        pids = {pid(pool, worker) for worker in pool.workers}
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_a_descriptor_is_passed_and_stays_ours(context: Context) -> None:
    """A worker that writes to whatever has this number in its process; a closed original."""
    with memory_file(1) as fd:
        with started(
            context, bodies.writing, lambda address: bodies.WithFile(address, PassedFd(fd))
        ) as pool:
            assert os.pread(fd, 20, 0).rstrip(b"\0") == str(pid(pool)).encode()
        os.pwrite(fd, b"ours", 0)
