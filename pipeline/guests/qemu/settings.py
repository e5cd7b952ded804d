"""What is changed in a QEMU for a migration, and how it was before: put back on every way out.

Left on, `x-ignore-shared` would let a later save leave out the memory in silence.
"""

import msgspec

from pipeline.guests.qemu.answers import Capability, Limits
from pipeline.guests.qemu.monitor import QemuMonitor
from pipeline.records.record import ChangedQemu
from protocol.errors import GuestError

IGNORE_SHARED = "x-ignore-shared"
LATE_ACTIVATE = "late-block-activate"
WANTED = {IGNORE_SHARED: True, LATE_ACTIVATE: True}
"""Capabilities that are on while device state travels; all others are off, but LEFT_ALONE."""
LEFT_ALONE = frozenset({"events"})
FASTEST = {"max-bandwidth": (1 << 63) - 1, "downtime-limit": 2_000_000}
"""Parameters: what is not shared travels at once, whatever the user allows QEMU's own migrations;
the limit is the highest that QEMU takes, in ms."""


class Settings:
    """Those of one QEMU; `before` is what `put_back` restores, as it goes on record."""

    def __init__(self, monitor: QemuMonitor) -> None:
        self._monitor = monitor
        capabilities = capabilities_of(monitor)
        wanted = {**dict.fromkeys(capabilities, False), **WANTED}
        before = msgspec.to_builtins(monitor.query(Limits, "query-migrate-parameters"))
        self._wanted = {
            name: state
            for name, state in wanted.items()
            if name in capabilities and name not in LEFT_ALONE
        }
        self.before = ChangedQemu(
            qemu=monitor.process,
            qmp=str(monitor.path.absolute()),
            capabilities={
                name: capabilities[name]
                for name, state in self._wanted.items()
                if capabilities[name] != state
            },
            parameters={name: before[name] for name in FASTEST},
        )
        self._changed = False

    def change(self) -> None:
        """As device state needs them; `before` has to be on record by then."""
        self._changed = True
        set_capabilities(
            self._monitor, {name: self._wanted[name] for name in self.before.capabilities}
        )
        self._monitor.ask("migrate-set-parameters", **FASTEST)

    def put_back(self) -> None:
        """As they were. Idempotent; GuestError where QEMU does not take them."""
        if self._changed:
            put_back(self._monitor, self.before)
            self._changed = False


def capabilities_of(monitor: QemuMonitor) -> dict[str, bool]:
    """All that this QEMU knows, and whether they are on."""
    known = monitor.query(list[Capability], "query-migrate-capabilities")
    return {one.capability: one.state for one in known}


def set_capabilities(monitor: QemuMonitor, states: dict[str, bool]) -> None:
    """Set those, and no others."""
    if states:
        listed = [{"capability": name, "state": state} for name, state in states.items()]
        monitor.ask("migrate-set-capabilities", capabilities=listed)


def put_back(monitor: QemuMonitor, before: ChangedQemu) -> None:
    """Settings as they are on record; GuestError where QEMU does not take them."""
    set_capabilities(monitor, before.capabilities)
    monitor.ask("migrate-set-parameters", **before.parameters)
    if not before.capabilities.items() <= capabilities_of(monitor).items():
        raise GuestError(f"{monitor.path}: QEMU has not taken its settings back")
