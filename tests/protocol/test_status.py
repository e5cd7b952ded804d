"""The status table and its compare-and-swap."""

from itertools import permutations, product

import pytest

from protocol.status import INCOMING_TRANSITIONS, TRANSITIONS, Status, StatusMachine

TABLES = {"outgoing": TRANSITIONS, "incoming": INCOMING_TRANSITIONS}
CHANGES = [(name, old, new) for name in TABLES for old, new in product(Status, Status)]
LEGAL = [(name, old, new) for name, old, new in CHANGES if new in TABLES[name][old]]


def _at(table: str, status: Status) -> tuple[StatusMachine, list[Status]]:
    machine = StatusMachine(TABLES[table])
    machine.status = status
    heard: list[Status] = []
    machine.notify(heard.append)
    return machine, heard


@pytest.mark.parametrize(("table", "old", "new"), CHANGES)
def test_every_change_is_in_the_table_or_our_bug(table: str, old: Status, new: Status) -> None:
    """A change that takes effect though the table does not have it, or the reverse."""
    machine, heard = _at(table, old)
    if new in TABLES[table][old]:
        assert machine.change(old, new)
        assert (machine.status, heard) == (new, [new])
    else:
        with pytest.raises(ValueError, match=f"from {old} to {new}"):
            machine.change(old, new)
        assert (machine.status, heard) == (old, [])


@pytest.mark.parametrize(("table", "old", "new"), LEGAL)
def test_a_change_whose_old_status_is_gone_does_nothing(
    table: str, old: Status, new: Status
) -> None:
    """A late change that overwrites the status and tells the world."""
    for holds in set(Status) - {old}:
        machine, heard = _at(table, holds)
        assert not machine.change(old, new)
        assert (machine.status, heard) == (holds, [])


def test_notifiers_are_called_in_order_before_the_change_returns() -> None:
    """Work that begins in a status that nobody has heard of yet."""
    machine = StatusMachine()
    heard: list[tuple[str, Status, Status]] = []

    def listen(name: str) -> None:
        machine.notify(lambda new: heard.append((name, new, machine.status)))

    listen("a")
    listen("b")
    assert machine.change(Status.NONE, Status.SETUP)
    assert heard == [("a", Status.SETUP, Status.SETUP), ("b", Status.SETUP, Status.SETUP)]


@pytest.mark.parametrize("order", [*permutations([Status.CANCELLING, Status.DEVICE])])
@pytest.mark.parametrize("old", [Status.ACTIVE, Status.PRE_SWITCHOVER])
def test_a_cancel_that_races_the_switch_over_has_one_winner(
    old: Status, order: tuple[Status, ...]
) -> None:
    """A guest cancelled at the source and started at the destination."""
    machine, heard = _at("outgoing", old)
    assert [machine.change(old, new) for new in order] == [True, False]
    assert heard == [order[0]]
    assert machine.status is order[0]


def test_a_notifier_may_cancel() -> None:
    """A cancel out of an event handler that the change under way undoes."""
    machine = StatusMachine()

    def cancel(new: Status) -> None:
        if new is Status.SETUP:
            machine.change(new, Status.CANCELLING)

    machine.notify(cancel)
    machine.change(Status.NONE, Status.SETUP)
    assert not machine.change(Status.SETUP, Status.ACTIVE)
    assert machine.status is Status.CANCELLING


def test_ends_are_told_apart() -> None:
    """A cancelled migration that counts as done, or device as an end."""
    asked = {status: _at("outgoing", status)[0] for status in Status}
    finished = {status for status, machine in asked.items() if machine.has_finished}
    failed = {status for status, machine in asked.items() if machine.has_failed}
    assert finished == {Status.COMPLETED, Status.FAILED, Status.CANCELLED}
    assert failed == {Status.FAILED, Status.CANCELLED}


def test_nothing_leads_out_of_device_but_the_two_ends() -> None:
    """A cancel that takes effect after the intent to commit."""
    assert TRANSITIONS[Status.DEVICE] == {Status.COMPLETED, Status.FAILED}
    assert set(TRANSITIONS) == set(INCOMING_TRANSITIONS) == set(Status)
