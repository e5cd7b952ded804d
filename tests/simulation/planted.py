"""Old mistakes, put back into the real classes: the simulation must find each."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from unittest import mock

import numpy as np
from numpy.typing import NDArray

from pipeline.destination.reassembly import Reassembly
from pipeline.destination.receiver import Receiver
from pipeline.source.dispatcher import Dispatcher
from protocol.commit import SourceCommit
from protocol.reorder import ReorderWindow
from workers.compress import CompressWorker
from workers.messages import Arrived, SendJob
from workers.pages import Hashes, Pages

Plant = AbstractContextManager[object]


def apply_out_of_order() -> Plant:
    """What has come is written, whatever is missing before it."""

    def head(window: ReorderWindow[Arrived]) -> Arrived | None:
        return next(iter(window._held.values()), None)

    def advance(window: ReorderWindow[Arrived]) -> Arrived:
        seq = next(iter(window._held))
        window.applied = max(window.applied, seq)
        return window._held.pop(seq)

    return mock.patch.multiple(ReorderWindow, head=head, advance=advance)


def acknowledge_before_the_write() -> Plant:
    """What has come counts as applied, though it waits for a frame before it."""
    return mock.patch.object(
        Reassembly,
        "applied",
        property(lambda memory: memory._waiting.applied + len(memory._waiting)),
    )


def skip_the_fence() -> Plant:
    """A round begins while frames of the one before it are on their way."""
    return mock.patch.object(Dispatcher, "all_applied", Dispatcher.all_given)


def redo_writes_the_hash() -> Plant:
    """The hash of a second copy stands in the table, while the first one may be what arrived."""
    note = CompressWorker._note

    def wrong(
        worker: CompressWorker, job: SendJob, pages: Pages, hashes: Hashes
    ) -> NDArray[np.bool_]:
        wanted = note(worker, job, pages, hashes)
        assert worker._tables is not None
        worker._tables[job.block][pages] = hashes
        return wanted

    return mock.patch.object(CompressWorker, "_note", wrong)


def start_before_commit() -> Plant:
    """Ready is taken for the commit."""
    load = Receiver._load

    def wrong(receiver: Receiver) -> None:
        load(receiver)
        receiver.engine.pump.committed = True

    return mock.patch.object(Receiver, "_load", wrong)


def resume_after_intent() -> Plant:
    """The source takes its guest for its own until it hears that it was started."""
    intend = SourceCommit.intend

    def wrong(commit: SourceCommit) -> None:
        intend(commit)
        commit.guest = "source"

    return mock.patch.object(SourceCommit, "intend", wrong)


PLANTED: dict[str, Callable[[], Plant]] = {
    "apply-out-of-order": apply_out_of_order,
    "acknowledge-before-the-write": acknowledge_before_the_write,
    "skip-the-fence": skip_the_fence,
    "redo-writes-the-hash": redo_writes_the_hash,
    "start-before-commit": start_before_commit,
    "resume-after-intent": resume_after_intent,
}


def planted(name: str | None) -> Plant:
    """While this lasts the code has that mistake; none, where there is no name."""
    return nullcontext() if name is None else PLANTED[name]()
