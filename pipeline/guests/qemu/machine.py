"""What a QEMU is, and what is in the way of its migration, asked and not changed."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pipeline.guests.qemu.monitor import QemuMonitor, QemuRefused
from pipeline.guests.qemu.ram import Backend, backends
from pipeline.guests.qemu.settings import IGNORE_SHARED, LATE_ACTIVATE, capabilities_of
from pipeline.guests.qemu.state import is_migrating
from protocol.limits import MAX_BLOCKS


@dataclass(frozen=True)
class Machine:
    """Its memory, and what its other end has to be like: machine type, processor, their number."""

    memory: list[Backend]
    kind: str


def machine_of(monitor: QemuMonitor) -> Machine:
    """What the QEMU is."""
    kind = str(monitor.ask("qom-get", path="/machine", property="type")).removesuffix("-machine")
    target = monitor.ask("query-target")["arch"]
    processors = len(monitor.ask("query-cpus-fast"))
    return Machine(backends(monitor), f"{kind}, {target}, {processors} processors")


def obstacles(monitor: QemuMonitor, machine: Machine) -> list[str]:
    """All that is in the way of taking a machine's memory and state from outside, at either end."""
    found = [one for backend in machine.memory if (one := backend.obstacle()) is not None]
    if not machine.memory:
        found.append("its memory is no object: -object memory-backend-file,share=on is needed")
    if len(machine.memory) > MAX_BLOCKS:
        found.append(f"{len(machine.memory)} memory objects, {MAX_BLOCKS} are taken")
    capabilities = capabilities_of(monitor)
    if IGNORE_SHARED not in capabilities:
        found.append(f"this QEMU has no {IGNORE_SHARED}")
    if LATE_ACTIVATE not in capabilities and _has_writable_disks(monitor):
        found.append(f"it has writable disks, and this QEMU no {LATE_ACTIVATE}")
    return [*found, *_unnamed_memory(monitor, machine)]


def source_obstacles(monitor: QemuMonitor) -> list[str]:
    """What else is in the way of one that is to leave."""
    told = monitor.ask("query-migrate")
    found = list(told.get("blocked-reasons", []))
    if is_migrating(told):
        found.append(f"it is migrating by itself: {told['status']}")
    return found


def destination_obstacles(monitor: QemuMonitor) -> list[str]:
    """What else is in the way of one that is to be filled."""
    state = monitor.ask("query-status")["status"]
    if state != "inmigrate":
        return [f"it does not wait for a guest but is {state}: -S -incoming defer"]
    if monitor.ask("query-migrate").get("status", "none") != "none":
        return ["a migration into it has begun already"]
    return []


def untracked_changes(monitor: QemuMonitor) -> Iterator[str]:
    """What write-protection does not show: a drive with direct I/O puts data straight into a
    machine's memory, a balloon punches holes into it (so does its free-page reporting)."""
    for node in monitor.ask("query-named-block-nodes", flat=True):
        if node["cache"]["direct"]:
            yield f"drive {node['node-name']} bypasses the cache"
    with suppress(QemuRefused):
        monitor.ask("query-balloon")
        yield "it has a balloon"


def _has_writable_disks(monitor: QemuMonitor) -> bool:
    return any(
        not one["inserted"]["ro"]
        for one in monitor.ask("query-block")
        if "inserted" in one and one["device"] != ""
    )


def _unnamed_memory(monitor: QemuMonitor, machine: Machine) -> list[str]:
    """Whether the machine's own memory is none of the objects."""
    sizes: dict[str, Any] = monitor.ask("query-memory-size-summary")
    there = sizes["base-memory"] + sizes.get("plugged-memory", 0)
    ours = sum(backend.size_bytes for backend in machine.memory)
    if ours < there:
        return [f"only {ours} of its {there} bytes of memory are memory objects"]
    return []
