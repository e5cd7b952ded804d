"""`--metrics`: what this command knows of its migration, as metrics for Prometheus.

A scrape shows the newest progress, which nobody changes any more: the migration waits for none.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from ipaddress import ip_address

import structlog

from pipeline.progress import Observer, Progress
from pipeline.signals import cancelled_by_signals
from protocol.errors import ConfigError
from protocol.session import Role
from protocol.status import Status

try:
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import (
        CounterMetricFamily,
        GaugeMetricFamily,
        InfoMetricFamily,
        Metric,
    )
    from prometheus_client.registry import Collector
except ImportError:
    raise ConfigError(
        "--metrics needs the package prometheus-client: pip install prometheus-client"
    ) from None

from pipeline.shell.metrics_server import MetricsServer


class ProgressCollector(Collector):
    """Turns the newest progress of an end into metrics; what is not known has none."""

    def __init__(self, role: Role) -> None:
        self._role = role
        self._newest = Progress(Status.NONE)

    def show(self, progress: Progress) -> None:
        """From now on a scrape shows `progress`."""
        self._newest = progress

    def collect(self) -> Iterator[Metric]:
        """What a scrape gets."""
        progress = self._newest
        about = {"role": self._role, "version": version("pageferry")}
        yield InfoMetricFamily("pageferry", "The command that is scraped.", about)
        status = {one.value: float(one is progress.status) for one in Status}
        yield _labelled(GaugeMetricFamily, "status", "1 for the current one.", status)
        for metric, value in (*_totals(progress), *_gauges(progress)):
            if value is not None:
                metric.add_metric([], value)
                yield metric
        yield from _by_label(progress)


Family = CounterMetricFamily | GaugeMetricFamily
Known = tuple[Family, float | None]


def _totals(progress: Progress) -> Iterable[Known]:
    """What only grows while a migration runs."""
    for name, about, value in (
        ("rounds", "Rounds that were begun.", progress.round_no),
        ("transferred_bytes", "Bytes on the wire.", progress.transferred),
        ("received_bytes", "Guest memory that has arrived.", progress.received),
        ("redone_frames", "Frames that were sent again.", progress.counts.redone),
    ):
        yield CounterMetricFamily(f"pageferry_{name}", about), value


def _gauges(progress: Progress) -> Iterable[Known]:
    counts = progress.counts
    for name, about, value in (
        ("elapsed_seconds", "Time since the migration was asked for.", progress.elapsed_s),
        ("memory_bytes", "The guest's memory.", counts.memory_bytes),
        ("remaining_bytes", "Guest memory still to be sent.", progress.remaining),
        ("dirty_pages_per_second", "Pages that the guest dirties.", progress.dirty_pages_rate),
        ("wire_bytes_per_second", "Speed on the wire.", progress.wire_rate),
        ("memory_bytes_per_second", "Speed of guest memory.", progress.guest_rate),
        ("ratio", "Bytes of normal pages by bytes on the wire.", progress.ratio),
        ("expected_downtime_seconds", "Estimate.", _seconds(progress.expected_downtime_ms)),
        ("downtime_seconds", "From the guest's stop to its start.", _seconds(counts.downtime_ms)),
    ):
        yield GaugeMetricFamily(f"pageferry_{name}", about), value


def _by_label(progress: Progress) -> Iterator[Metric]:
    counts = progress.counts
    for kind, name, about, values in (
        (CounterMetricFamily, "pages", "Pages sent, by kind.", counts.pages),
        (GaugeMetricFamily, "workers", "Workers, by stage.", counts.workers),
        (CounterMetricFamily, "stage_busy_seconds", "Work of all workers.", counts.busy_s),
    ):
        if values:
            yield _labelled(kind, name, about, values)


_LABELS = {"status": "status", "pages": "kind", "workers": "stage", "stage_busy_seconds": "stage"}


def _labelled(kind: type[Family], name: str, about: str, values: Mapping[str, float]) -> Family:
    family = kind(f"pageferry_{name}", about, labels=[_LABELS[name]])
    for label, value in values.items():
        family.add_metric([label], value)
    return family


def _seconds(ms: float | None) -> float | None:
    return None if ms is None else ms / 1e3


@contextmanager
def exporting(address: str, role: Role) -> Iterator[Observer]:
    """What to tell of progress, while it can be scraped at `address`; ConfigError where it
    cannot."""
    collector, registry = ProgressCollector(role), CollectorRegistry()
    registry.register(collector)
    server = MetricsServer(address, registry)
    try:
        _tell(server)
        yield collector.show
    finally:
        with cancelled_by_signals(lambda: None):
            server.close()


def _tell(server: MetricsServer) -> None:
    log, host = structlog.get_logger(), str(server.server_address[0])
    log.info("metrics", url=f"{server.url}/metrics")
    if not ip_address(host).is_loopback:
        log.warning("whoever reaches the metrics can read them: nobody has to say who it is")
