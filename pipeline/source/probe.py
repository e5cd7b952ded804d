"""What can be told of a guest before it migrates, without touching it."""

import os
from dataclasses import dataclass
from math import log1p
from time import monotonic, sleep

import numpy as np
from xxhash import xxh3_64_intdigest

from pipeline.config.model import Config, FileGuest, QemuGuest
from pipeline.guests.base import GuestBlock, SourceGuest
from pipeline.guests.file import FileGuest as File
from pipeline.guests.synthetic import SyntheticGuest
from pipeline.source.tracking import choose, refusal
from protocol.errors import ConfigError, NoSuchGuest
from protocol.limits import PAGE_BYTES

SAMPLE_PAGES = 16_384
"""Of all pages; 64 MiB are read and hashed in some 60 ms, twice."""
WATCHED_S = 1.0


@dataclass(frozen=True)
class Probe:
    """What is `in_the_way` of its migration, and, where it could be looked at, what it is and does.

    `dirty_rate` is bytes of pages a second, from what a sample of pages has changed in a second;
    `hash_pass_ms` how long one processor takes to hash all its memory.
    """

    in_the_way: list[str]
    run_state: str | None = None
    memory_bytes: int = 0
    tracker: str = ""
    tracker_reason: str = ""
    dirty_rate: float = 0.0
    hash_pass_ms: float = 0.0


def probe(config: Config) -> Probe:
    """Look at the guest of `config`; ConfigError where there is none before it migrates."""
    try:
        guest = _open(config)
    except NoSuchGuest as error:
        return Probe(str(error).split("; "))
    try:
        return _probe(config, guest)
    finally:
        guest.close()


def _open(config: Config) -> SourceGuest:
    """As `make_guest`, but that nothing is put right."""
    match config.guest:
        case QemuGuest(qmp=qmp):
            from pipeline.guests.qemu.source import QemuGuest as Qemu  # its library is an extra

            return Qemu(qmp)
        case FileGuest(path=path, pid=pid):
            return File(path, pid)
    if config.guest.socket is None:
        raise ConfigError("--probe: found no guest yet: this one is started when it migrates")
    return SyntheticGuest.attach(config.guest.socket)


def _probe(config: Config, guest: SourceGuest) -> Probe:
    tracker, reason = choose(config.tracker, guest, config.verify)
    in_the_way = list(filter(None, [guest.why_not_movable()]))
    if config.tracker == "uffd" and tracker == "hash":
        in_the_way.append(refusal(reason))
    pages = sum(block.pages for block in guest.blocks)
    changed, page_s = _watch(guest.blocks, pages)
    return Probe(
        in_the_way=in_the_way,
        run_state=guest.run_state(),
        memory_bytes=pages * PAGE_BYTES,
        tracker=tracker,
        tracker_reason=reason,
        dirty_rate=_rate(changed) * pages * PAGE_BYTES,
        hash_pass_ms=page_s * pages * 1e3,
    )


def _rate(changed: float) -> float:
    """Writes to one page a second, where that share of pages has changed in WATCHED_S, and pages
    are written independently of each other: 1 - exp(-rate t) of them are."""
    return -log1p(-min(changed, 0.999)) / WATCHED_S


def _watch(blocks: list[GuestBlock], pages: int) -> tuple[float, float]:
    """The share of sampled pages that change in WATCHED_S, and seconds to read and hash one."""
    random = np.random.default_rng()
    sample = [
        (block.fd, np.sort(random.choice(block.pages, SAMPLE_PAGES * block.pages // pages + 1)))
        for block in blocks
    ]
    began = monotonic()
    before = _hashes(sample)
    took_s = monotonic() - began
    sleep(max(0.0, WATCHED_S - took_s))
    changed = before != _hashes(sample)
    return float(changed.mean()), took_s / len(before)


def _hashes(sample: list[tuple[int, "np.ndarray[tuple[int], np.dtype[np.int64]]"]]) -> "np.ndarray":
    return np.array(
        [
            xxh3_64_intdigest(os.pread(fd, PAGE_BYTES, int(page) * PAGE_BYTES))
            for fd, chosen in sample
            for page in chosen
        ],
        np.uint64,
    )
