"""The devices: what is saved is what goes on; what does not fit is refused."""

from collections.abc import Callable
from dataclasses import replace

import msgspec
import pytest

from pipeline.guests import devices, selfcheck
from pipeline.guests.workload import Pattern
from protocol.devices import Section, decode_sections, encode_sections
from protocol.errors import GuestError
from tests.pipeline.guests.helpers import PAGES, filled, memory_of

MS = 1_000_000


@pytest.mark.parametrize("pattern", ["uniform", "zipf", "sequential"])
def test_a_loaded_guest_goes_on_where_it_was(pattern: Pattern) -> None:
    """A device that is not saved: the copy would write other pages than the original."""
    with filled(pattern=pattern) as guest, memory_of(PAGES) as memory:
        guest.runner.run(77 * MS)
        stream = encode_sections(devices.save(guest.runner, guest.digest))
        memory.words[:] = guest.runner.memory.words
        arrived = devices.load(decode_sections(stream), memory)
        assert arrived.left_ns == 77 * MS
        for runner in (guest.runner, arrived.runner):
            runner.go_on(0)
            runner.run(50 * MS)
        assert (memory.words == guest.runner.memory.words).all()
        assert arrived.runner.total == guest.runner.total > 1000
        assert selfcheck.check(arrived.runner, arrived.static_digest) is None


def test_the_gap_is_not_told_across_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Monotonic clocks of two machines, subtracted: a downtime of days, or below zero."""
    with filled() as guest:
        sections = devices.save(guest.runner, guest.digest)
        monkeypatch.setattr(devices, "_boot", lambda: "another")
        assert devices.load(sections, guest.runner.memory).left_ns is None


def test_the_rate_counts_from_the_arrival() -> None:
    """Writes made at the source, told as the destination's rate."""
    with filled() as guest:
        guest.write(5000)
        arrived = devices.load(devices.save(guest.runner, 0), guest.runner.memory)
        arrived.runner.arrived(now_ns=100 * MS, clock_ns=40 * MS)
        arrived.runner.run(200 * MS)
        told = arrived.runner.statistics()
        assert told.dirty_rate == pytest.approx(40 << 20, rel=0.01)
        assert told.gap_ms == 60


def of_version_2(sections: list[Section]) -> None:
    sections[2] = replace(sections[2], version=2)


def of_instance_1(sections: list[Section]) -> None:
    sections[0] = replace(sections[0], instance=1)


def with_globalstate(sections: list[Section]) -> None:
    sections.append(Section("globalstate", 0, 1, b""))


def without_counters(sections: list[Section]) -> None:
    del sections[2]


def twice_the_clock(sections: list[Section]) -> None:
    sections[1] = sections[0]


def clock_and_one_more(sections: list[Section]) -> None:
    sections.append(sections[0])


def cut_short(sections: list[Section]) -> None:
    sections[1] = replace(sections[1], payload=sections[1].payload[:-1])


def of_another_device(sections: list[Section]) -> None:
    sections[0] = replace(sections[0], payload=sections[1].payload)


def of_more_memory(sections: list[Section]) -> None:
    change_workload(sections, memory_bytes=PAGES * 8192)


def outside_the_working_set(sections: list[Section]) -> None:
    change_workload(sections, position=600)


def with_a_huge_working_set(sections: list[Section]) -> None:
    progress = msgspec.msgpack.decode(sections[3].payload, type=devices.Progress)
    workload = replace(progress.workload, working_set=2**62)
    change_workload(sections, workload=workload)


def change_workload(sections: list[Section], **changes: object) -> None:
    progress = msgspec.msgpack.decode(sections[3].payload, type=devices.Progress)
    changed = msgspec.structs.replace(progress, **changes)
    sections[3] = replace(sections[3], payload=msgspec.msgpack.encode(changed))


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (of_version_2, "device section counters has version 2, 1 is known"),
        (of_instance_1, "unknown device section clock 1"),
        (with_globalstate, "unknown device section globalstate 0"),
        (without_counters, "device sections clock, prng, workload; one each"),
        (twice_the_clock, "device sections clock, clock, counters, workload; one each"),
        (clock_and_one_more, "one each"),
        (cut_short, "device section prng: "),
        (of_another_device, "state of another device"),
        (of_more_memory, f"{PAGES * 8192} bytes of memory, {PAGES * 4096} are here"),
        (outside_the_working_set, "position 600 is outside"),
        (with_a_huge_working_set, "a working set of"),
    ],
)
def test_what_does_not_fit_is_refused(change: Callable[[list[Section]], None], line: str) -> None:
    """A state taken in half, or for another machine: the guest would go on wrongly."""
    with filled() as guest:
        sections = devices.save(guest.runner, guest.digest)
        change(sections)
        with pytest.raises(GuestError, match=line) as refusal:
            devices.load(sections, guest.runner.memory)
        assert "\n" not in str(refusal.value)
