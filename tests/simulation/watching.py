"""Lets the truth see what both ends do, at the places where they do it."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, ParamSpec, TypeVar
from unittest import mock

from pipeline.control_link import ControlLink
from pipeline.destination.reassembly import Reassembly
from pipeline.source.dirty import DirtyMap
from pipeline.source.dispatcher import Dispatcher
from pipeline.source.engine import SourceEngine
from protocol import control as c
from tests.simulation.invariants import Truth
from tests.simulation.stage import Stage
from workers import compress
from workers.messages import SendJob, ToWorker
from workers.pool import Pool

P = ParamSpec("P")
R = TypeVar("R")


def _before(see: Callable[P, None], real: Callable[P, R]) -> Callable[P, R]:
    def watched(*args: P.args, **kwargs: P.kwargs) -> R:
        see(*args, **kwargs)
        return real(*args, **kwargs)

    return watched


def _after(see: Callable[P, None], real: Callable[P, R]) -> Callable[P, R]:
    def watched(*args: P.args, **kwargs: P.kwargs) -> R:
        found = real(*args, **kwargs)
        see(*args, **kwargs)
        return found

    return watched


class Watcher:
    """Translates what is called into what the truth wants to know."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    @property
    def _truth(self) -> Truth:
        return self._stage.world.truth

    def job(self, pool: Pool, worker: int, message: ToWorker) -> None:
        """A pool tells a worker something."""
        if isinstance(message, SendJob):
            self._truth.gives(message)

    def heard(self, dispatcher: Dispatcher, seq: int) -> None:
        """The source hears what is applied."""
        self._truth.heard = seq

    def take(self, dirty: DirtyMap, batch_pages: int) -> None:
        """Pages are about to be taken off the dirty set."""
        self._truth.takes(dirty)

    def fence(self, engine: SourceEngine) -> None:
        """The fence has fallen."""
        table = None if engine.sent.hashes is None else engine.sent.hashes[0]
        self._truth.settles(engine.dirty, table, engine.session_id)

    def say(self, link: ControlLink, message: c.AnyMessage) -> None:
        """One end is about to say something."""
        self._truth.hears(link.session.role, message)


@contextmanager
def watched(stage: Stage) -> Iterator[None]:
    """While this lasts the truth of the stage's world sees everything."""
    watcher = Watcher(stage)
    places: list[tuple[object, str, Callable[..., Any], Callable[..., None]]] = [
        (Pool, "send", _before, watcher.job),
        (Dispatcher, "heard_applied", _before, watcher.heard),
        (DirtyMap, "take", _before, watcher.take),
        (SourceEngine, "fence", _after, watcher.fence),
        (ControlLink, "send", _before, watcher.say),
        (compress, "encode_batch", _before, lambda batch, **_: stage.world.truth.sends(batch)),
        (Reassembly, "_land", _after, lambda _, batch: stage.world.truth.lands(batch)),
    ]
    with ExitStack() as stack:
        for owner, name, when, see in places:
            seen = when(see, getattr(owner, name))
            stack.enter_context(mock.patch.object(owner, name, seen))
        yield
