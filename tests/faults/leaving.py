"""A source in the thread of a test, which looks into it at every tick."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from pipeline.config.model import Config
from pipeline.guests.base import SourceGuest
from pipeline.guests.synthetic import SyntheticGuest
from pipeline.result import Result
from pipeline.source.coordinator import Coordinator
from pipeline.source.departures import leaving_disks, make_guest
from pipeline.source.dirty import DirtyMap
from pipeline.source.report import result_of
from pipeline.source.tracking import start_tracking
from pipeline.timeline import Timeline
from protocol.status import StatusMachine
from protocol.uri import Uri

Look = Callable[[Coordinator], None]


def before_rounds(coordinator: Coordinator, do: Callable[[int], None]) -> None:
    """Call `do(round_no)` before each round begins."""
    engine = coordinator.engine
    start_round = engine.start_round

    def start(sent: DirtyMap | None = None) -> None:
        do(engine.dispatcher.round_no + 1)
        start_round(sent)

    engine.start_round = start  # type: ignore[method-assign]


def two_rounds(coordinator: Coordinator) -> None:
    """Let nothing be good enough for the switch-over before the second round."""
    rounds = coordinator.pacing.rounds
    limit_ms, rounds.most_ms = rounds.most_ms, 0.0

    def allow(round_no: int) -> None:
        if round_no == 2:
            rounds.most_ms = limit_ms

    before_rounds(coordinator, allow)


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
    """Migrate `guest`, and its disks, to `uri`, with `at_first(coordinator)` before anything is
    said."""
    model, status = Config.model_validate(config), StatusMachine()
    timeline = Timeline(status)
    tracking = start_tracking(model.tracker, guest, model.verify)
    disks = leaving_disks(model)
    coordinator = Coordinator(
        model, guest, tracking, status, uri, lambda _: on_tick(coordinator), disks=disks
    )
    at_first(coordinator)
    coordinator.migrate()
    return result_of(coordinator, model, status, timeline)
