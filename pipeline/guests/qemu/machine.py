"""What a QEMU is, and what is in the way of its migration, asked and not changed."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from pipeline.guests.qemu.answers import (
    Answer,
    Drive,
    Limits,
    MemorySizes,
    Node,
    OwnMigration,
    RunState,
    Target,
)
from pipeline.guests.qemu.monitor import QemuMonitor, QemuRefused
from pipeline.guests.qemu.ram import Backend, backends
from pipeline.guests.qemu.settings import IGNORE_SHARED, LATE_ACTIVATE, capabilities_of
from protocol.limits import MAX_BLOCKS

SAVED = "postmigrate"
"""The run state of a machine whose device state was saved, until somebody lets it go on."""
TOUCHED = frozenset({"RESUME", "RESET"})
"""What a QEMU tells of when somebody lets a machine run, or starts it anew, between two looks."""
LEFT = {
    SAVED: "its state was taken before, and `cont` lets it go on, where it runs nowhere else",
    "inmigrate": "it waits for a guest itself",
}
"""Run states in which no guest is there to leave."""


@dataclass(frozen=True)
class Machine:
    """Its memory, and what its other end has to be like: machine type, processor, their number."""

    memory: list[Backend]
    kind: str


def machine_of(monitor: QemuMonitor) -> Machine:
    """What the QEMU is."""
    kind = monitor.query(str, "qom-get", path="/machine", property="type")
    target = monitor.query(Target, "query-target").arch
    processors = len(monitor.query(list[Answer], "query-cpus-fast"))
    name = kind.removesuffix("-machine")
    return Machine(backends(monitor), f"{name}, {target}, {processors} processors")


def run_state(monitor: QemuMonitor) -> str:
    """As QEMU has it."""
    return monitor.query(RunState, "query-status").status


def own_migration(monitor: QemuMonitor) -> OwnMigration:
    """What the QEMU says of its own migration."""
    return monitor.query(OwnMigration, "query-migrate")


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
    own, state = own_migration(monitor), run_state(monitor)
    found = list(own.blocked_reasons)
    if own.is_under_way:
        found.append(f"it is migrating by itself: {own.status}")
    if state in LEFT:
        found.append(f"it is {state}: {LEFT[state]}")
    return [*found, *_encryption(monitor)]


def destination_obstacles(monitor: QemuMonitor) -> list[str]:
    """What else is in the way of one that is to be filled."""
    state, own = run_state(monitor), own_migration(monitor)
    if state != "inmigrate":
        return [f"it does not wait for a guest but is {state}: -S -incoming defer"]
    if own.status != "none":
        return ["a migration into it has begun already"]
    if own.socket_address:
        return ["it waits for a guest by itself: -incoming defer"]
    return _encryption(monitor)


def _encryption(monitor: QemuMonitor) -> list[str]:
    """Its device state would be encrypted, in the pipe to us."""
    if monitor.query(Limits, "query-migrate-parameters").tls_creds:
        return ["its own migrations use TLS: migrate-set-parameters tls-creds=''"]
    return []


def untracked_changes(monitor: QemuMonitor) -> Iterator[str]:
    """What write-protection does not show: a drive with direct I/O puts data straight into a
    machine's memory, a balloon punches holes into it (so does its free-page reporting)."""
    for node in monitor.query(list[Node], "query-named-block-nodes", flat=True):
        if node.cache.direct:
            name = node.file if node.node_name.startswith("#") else node.node_name
            yield f"drive {name} bypasses the cache"
    with suppress(QemuRefused):
        monitor.ask("query-balloon")
        yield "it has a balloon"


def _has_writable_disks(monitor: QemuMonitor) -> bool:
    media = [drive.inserted for drive in monitor.query(list[Drive], "query-block")]
    return any(not medium.ro for medium in media if medium is not None)


def _unnamed_memory(monitor: QemuMonitor, machine: Machine) -> list[str]:
    """Whether the machine's own memory is none of the objects."""
    sizes = monitor.query(MemorySizes, "query-memory-size-summary")
    there = sizes.base_memory + sizes.plugged_memory
    ours = sum(backend.size_bytes for backend in machine.memory)
    if ours < there:
        return [f"only {ours} of its {there} bytes of memory are memory objects"]
    return []
