"""How fast migrations of a batch are, by those that have arrived; what is left, foreseen by that.
Pure."""

from collections.abc import Mapping
from functools import partial
from statistics import median

from pipeline.batch.forecast import Forecast, forecast
from pipeline.batch.moves import Move
from pipeline.batch.plan import Plan
from pipeline.batch.prediction import WIRE_SPEED

HELD_BACK = 0.8
"""Of its share of the link: who takes less is not held back by it."""
AHEAD = 1000
"""Moves that are foreseen while others run: some 0.2 s."""


class Learning:
    """Of one batch; `cores` as of a forecast."""

    def __init__(self, plan: Plan, cores: int | None) -> None:
        self._plan = plan
        self._cores = cores
        self._wire_rates: list[float] = []
        self._overheads: list[float] = []

    def single_stream(self) -> float:
        """Bytes/s on the wire of one migration that no share holds back."""
        return median(self._wire_rates) if self._wire_rates else WIRE_SPEED

    def rate(self, rate: float | None, share: float | None) -> None:
        """One has arrived that sent `rate` bytes/s, of the `share` of its link, if that has one."""
        if rate and (share is None or rate < HELD_BACK * share):
            self._wire_rates.append(rate)

    def overhead(self, took_s: float, sent_s: float) -> None:
        """One has arrived `took_s` after its begin, and was sending for `sent_s` of these."""
        self._overheads.append(max(0.0, took_s - sent_s))

    def ahead(self, left: list[Move], under_way_s: Mapping[str, float]) -> Forecast:
        """How long those take that are left, of which some began so long ago; besides sending as
        long as those that have arrived."""
        foreseen = partial(forecast, self._plan, left[:AHEAD], under_way_s=under_way_s)
        if not self._overheads:
            return foreseen(cores=self._cores)
        return foreseen(overhead_s=median(self._overheads))
