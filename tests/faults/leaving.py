"""A source in the thread of a test, which looks into it at every tick."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from pipeline.config.model import Config
from pipeline.guests.base import SourceGuest
from pipeline.guests.synthetic import SyntheticGuest
from pipeline.result import Result
from pipeline.source.command import make_guest
from pipeline.source.coordinator import Coordinator
from pipeline.source.report import result_of
from pipeline.timeline import Timeline
from pipeline.tracking.choice import start_tracking
from protocol.status import StatusMachine
from protocol.uri import Uri

Look = Callable[[Coordinator], None]


@contextmanager
def synthetic_guest(config: dict[str, Any]) -> Iterator[SyntheticGuest]:
    """The guest that `config` describes, running."""
    guest = make_guest(Config.model_validate(config))
    assert isinstance(guest, SyntheticGuest)
    try:
        yield guest
    finally:
        guest.close()


def leave(
    config: dict[str, Any],
    uri: Uri,
    guest: SourceGuest,
    *,
    on_tick: Look = lambda _: None,
    at_first: Look = lambda _: None,
) -> Result:
    """Migrate `guest` to `uri`, with `at_first(coordinator)` before anything is said."""
    model, status = Config.model_validate(config), StatusMachine()
    timeline = Timeline(status)
    tracking = start_tracking(model.tracker, guest)
    coordinator = Coordinator(model, guest, tracking, status, uri, lambda _: on_tick(coordinator))
    at_first(coordinator)
    coordinator.migrate()
    return result_of(coordinator, model, status, timeline)
