"""Deltas end to end: memory is right at the destination, and a fraction of it has travelled."""

import os
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.model import Config
from pipeline.destination.landing import Landing
from pipeline.source.coordinator import Coordinator
from pipeline.source.sent_tables import SentTables
from protocol.errors import ConfigError
from protocol.limits import PAGE_BYTES
from protocol.uri import Uri
from tests.faults.leaving import leave, synthetic_guest
from tests.system.migrations import MIB, Destination, both_ends, migrate, nobody, settings
from tests.system.test_synthetic_guest import WAYS, assert_moved
from workers.messages import Reconnect
from workers.pages import Pages

GIB = 1 << 30
GUEST = {
    "kind": "synthetic",
    "memory": "32MiB",
    "workload": {"working-set": "8MiB", "dirty-rate": "16MiB", "bytes-per-page": 64},
}
BUSY = {"max-bandwidth": "4MiB", "downtime-limit": 50}


def config(**keys: Any) -> dict[str, Any]:  # noqa: ANN401
    """A guest that changes little in many pages, with deltas."""
    parameters = {**BUSY, **keys.pop("parameters", {})}
    return settings(GUEST, parameters=parameters, capabilities={"xbzrle": True}, **keys)


@pytest.mark.parametrize(("tracker", "verify"), WAYS)
def test_every_way_to_track_and_to_verify(folder: Path, tracker: str, verify: str) -> None:
    """A delta against a page as it was at another time; a round that does not shrink by them."""
    here, there = both_ends(config(tracker=tracker, verify=verify), folder)
    assert_moved(here, there)
    counts = here.xbzrle_cache
    assert counts is not None
    assert counts.pages > 100
    assert counts.cache_size == 32 * MIB
    assert counts.bytes < counts.pages * 200
    later = [one for one in here.rounds[2:] if one.pages > 100]
    assert later
    assert all(one.wire_bytes < one.pages * 4096 // 10 for one in later), later


@pytest.mark.parametrize("codec", ["none", "zlib", "zstd", "lz4", "auto"])
def test_every_codec(folder: Path, codec: str) -> None:
    """Deltas and pages unpacked at each other's places."""
    here, there = both_ends(config(codec=codec), folder)
    assert_moved(here, there)
    assert here.xbzrle_cache is not None
    assert here.xbzrle_cache.pages > 100


@pytest.mark.parametrize("size", [4096, 65536, 4 * MIB])
def test_a_cache_that_is_too_small(folder: Path, size: int) -> None:
    """Pages that share a slot, each taken for the other; misses that nobody counts."""
    fast = {"xbzrle-cache-size": size, "max-bandwidth": "64MiB"}
    here, there = both_ends(config(parameters=fast), folder)
    assert_moved(here, there)
    counts = here.xbzrle_cache
    assert counts is not None
    assert (counts.cache_size, counts.cache_miss > 0) == (size, True)


def test_what_is_redone_is_no_delta(folder: Path) -> None:
    """A delta against a frame that was lost with its connection."""
    cut: list[int] = []

    def reconnect(coordinator: Coordinator) -> None:
        round_no = coordinator.engine.dispatcher.round_no
        if round_no > 1 and round_no not in cut and coordinator.engine.dispatcher.is_waiting:
            cut.append(round_no)
            coordinator.engine.pool.broadcast(Reconnect(0))

    there = Destination(config(), folder)
    with synthetic_guest(config()) as guest:
        here = leave(config(), there.uri, guest, on_tick=reconnect)
    assert_moved(here, there.result())
    assert cut
    assert here.redone > 0


def test_a_page_that_arrived_wrong_is_sent_whole(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mismatch of a page mended by what differs from what was sent of it: nothing."""
    change = Landing._change
    spoilt: list[int] = []

    def change_and_spoil(landing: Landing, pages: Pages, section: memoryview) -> None:
        change(landing, pages, section)
        spoilt.append(int(pages[0]))
        os.pwrite(landing._fd, b"spoilt!!", spoilt[-1] * PAGE_BYTES + 2048)

    heard: list[int] = []
    forget = SentTables.forget

    def note_and_forget(tables: SentTables, block: int, pages: Pages) -> None:
        heard.extend(pages.tolist())
        forget(tables, block, pages)

    monkeypatch.setattr(Landing, "_change", change_and_spoil)
    monkeypatch.setattr(SentTables, "forget", note_and_forget)
    here, there = both_ends(config(), folder)
    assert_moved(here, there)
    assert heard
    assert set(heard) <= set(spoilt)


def test_the_size_changes_while_it_runs(folder: Path) -> None:
    """Entries found where they were before the change."""
    sizes = [MIB, 16 * MIB, 65536, 32 * MIB]

    def resize(coordinator: Coordinator) -> None:
        slots = coordinator.engine.dispatcher.cache_slots
        if sizes and coordinator.engine.dispatcher.round_no > 4 - len(sizes):
            parameters = coordinator.engine.config.parameters
            given = {"xbzrle_cache_size": sizes.pop(0)}
            coordinator.adjust(parameters.model_copy(update=given))
            seen.append(slots)

    seen: list[int] = []
    there = Destination(config(), folder)
    with synthetic_guest(config()) as guest:
        here = leave(config(), there.uri, guest, on_tick=resize)
    assert_moved(here, there.result())
    assert len(set(seen)) >= 3


def test_a_saved_guest_has_none(folder: Path) -> None:
    """A file whose pages nobody can read back."""
    saved = Uri("file", path=str(folder / "saved"))
    with synthetic_guest(config()) as guest:
        with pytest.raises(ConfigError, match="xbzrle: a saved guest travels in whole pages"):
            migrate(Config.model_validate(config()), saved, nobody, guest=guest)
        assert guest.run_state() == "running"
    assert not (folder / "saved").exists()


def test_a_cache_that_is_larger_than_memory_is_refused(folder: Path) -> None:
    """A size that is cut without a word, and not the one that was asked for."""
    with synthetic_guest(config()) as guest:
        large = Config.model_validate(config(parameters={"xbzrle-cache-size": 16 * MIB}))
        large = large.model_copy(
            update={"parameters": large.parameters.model_copy(update={"xbzrle_cache_size": GIB})}
        )
        with pytest.raises(ConfigError, match="exceeds guest ram size"):
            migrate(large, Uri("unix", path=str(folder / "c")), nobody, guest=guest)
