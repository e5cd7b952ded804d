"""A scrape as Prometheus does it, and what it says."""

from collections.abc import Iterator
from urllib.request import build_opener

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

Samples = dict[tuple[str, str], float]


def samples(url: str) -> Iterator[Sample]:
    """What a scrape gets; ValueError for what is malformed."""
    with build_opener().open(url, timeout=5) as answer:
        text = answer.read().decode()
    for family in text_string_to_metric_families(text):
        yield from family.samples


def scrape(url: str) -> Samples:
    """Each sample's value by its name and its labels' values."""
    return {(one.name, ",".join(one.labels.values())): one.value for one in samples(url)}
