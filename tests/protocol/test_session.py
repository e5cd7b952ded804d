"""Both ends of the conversation, with a fake link between them."""

from collections import deque
from itertools import product
from typing import get_args

import pytest

from protocol.control import Alive, AnyMessage, Cancel, Failed
from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.session import MESSAGES, Role, Session, Stage
from tests.protocol.samples import BY_NAME

ROLES: tuple[Role, ...] = ("source", "destination")
TYPES: tuple[type[AnyMessage], ...] = get_args(AnyMessage)
ENDINGS: dict[Role, type[AnyMessage]] = {"source": Cancel, "destination": Failed}
WHOLE = (
    "> Hello < Welcome > Holes > Holes > RoundStart < Applied < Redo < Applied"
    " > RoundStart < Applied > Verify < Applied < Redo < Mismatch < Verified"
    " > RoundStart < Applied > Verify < Verified > Devices > Devices < Ready > Commit"
)
"""A migration with two holes, two rounds, a redo and a mismatch, up to the commit."""


class Pair:
    """A source and a destination; what is sent waits on the link until it is delivered."""

    def __init__(self) -> None:
        self.ends: dict[Role, Session] = {role: Session(role) for role in ROLES}
        self.link: dict[Role, deque[AnyMessage]] = {role: deque() for role in ROLES}

    def send(self, sender: Role, name: str) -> None:
        """The message called `name` goes onto the link."""
        self.ends[sender].send(BY_NAME[name])
        self.link[sender].append(BY_NAME[name])

    def deliver(self, sender: Role) -> None:
        """The oldest message of `sender` arrives."""
        self.ends[_peer(sender)].receive(self.link[sender].popleft())

    def play(self, script: str) -> None:
        """Send and deliver each of e.g. "> Hello < Welcome" ('>' is from the source)."""
        words = script.split()
        for arrow, name in zip(words[::2], words[1::2], strict=True):
            sender: Role = "source" if arrow == ">" else "destination"
            self.send(sender, name)
            self.deliver(sender)

    @property
    def stages(self) -> set[Stage]:
        """Where the two ends stand."""
        return {end.stage for end in self.ends.values()}


def _peer(role: Role) -> Role:
    return "destination" if role == "source" else "source"


def _at(role: Role, stage: Stage) -> Session:
    session = Session(role)
    session.stage = stage
    return session


def _next(sender: Role, stage: Stage, message: type[AnyMessage]) -> Stage | None:
    """What the rules say: the table, Alive anywhere, an ending before the commit."""
    if message is Alive:
        return stage
    if message is ENDINGS[sender] and stage not in (Stage.COMMITTED, Stage.STARTED):
        return Stage.OVER
    return MESSAGES[sender].get((stage, message))


EVERYTHING = list(product(ROLES, Stage, TYPES))
LEGAL = [case for case in EVERYTHING if _next(*case) is not None]
ILLEGAL = [case for case in EVERYTHING if _next(*case) is None]


def _name(value: object) -> str:
    return value.name if isinstance(value, Stage) else getattr(value, "__name__", str(value))


def test_a_whole_migration_is_legal() -> None:
    """A row missing from the table."""
    pair = Pair()
    pair.play(f"{WHOLE} < Started")
    assert pair.stages == {Stage.STARTED}


def test_not_started_ends_both() -> None:
    """A definite no after the commit that the source does not take as the end."""
    pair = Pair()
    pair.play(f"{WHOLE} < NotStarted")
    assert pair.stages == {Stage.OVER}


@pytest.mark.parametrize(("sender", "stage", "message"), LEGAL, ids=_name)
def test_both_ends_take_the_same_step(
    sender: Role, stage: Stage, message: type[AnyMessage]
) -> None:
    """Ends that disagree about the stage after a legal message."""
    pair = Pair()
    pair.ends = {role: _at(role, stage) for role in ROLES}
    pair.send(sender, message.__name__)
    pair.deliver(sender)
    assert pair.stages == {_next(sender, stage, message)}


@pytest.mark.parametrize(("sender", "stage", "message"), ILLEGAL, ids=_name)
def test_an_illegal_message_is_not_sent(
    sender: Role, stage: Stage, message: type[AnyMessage]
) -> None:
    """A message let out in a stage where the other end must refuse it."""
    session = _at(sender, stage)
    with pytest.raises(LocalProtocolError) as caught:
        session.send(BY_NAME[message.__name__])
    _tells(str(caught.value), sender, stage, message)
    assert session.stage is stage


@pytest.mark.parametrize(
    ("sender", "stage", "message"),
    [case for case in ILLEGAL if case[1] is not Stage.OVER],
    ids=_name,
)
def test_an_illegal_message_ends_the_session(
    sender: Role, stage: Stage, message: type[AnyMessage]
) -> None:
    """A peer that skips a step, or plays the other role, and is believed."""
    session = _at(_peer(sender), stage)
    with pytest.raises(RemoteProtocolError) as caught:
        session.receive(BY_NAME[message.__name__])
    _tells(str(caught.value), session.role, stage, message)
    assert session.stage is Stage.OVER


def _tells(story: str, role: Role, stage: Stage, message: type[AnyMessage]) -> None:
    for part in (role, f"stage {stage.name.lower()}", message.__name__):
        assert part in story


@pytest.mark.parametrize("message", TYPES, ids=_name)
def test_what_crosses_the_end_is_let_through(message: type[AnyMessage]) -> None:
    """A cancel whose reason is lost because the peer's last words raise an error."""
    for role in ROLES:
        session = _at(role, Stage.OVER)
        session.receive(BY_NAME[message.__name__])
        assert session.stage is Stage.OVER


def test_messages_may_cross_on_the_link() -> None:
    """An Applied that was under way when the source began to verify, refused."""
    pair = Pair()
    pair.play("> Hello < Welcome > RoundStart")
    pair.send("destination", "Applied")
    pair.send("source", "Verify")
    pair.deliver("destination")
    pair.deliver("source")
    assert pair.stages == {Stage.VERIFYING}


def test_a_cancel_may_cross_ready() -> None:
    """A cancelled source that reports a protocol error for a Ready under way."""
    pair = Pair()
    pair.play(WHOLE.partition("< Ready")[0])
    pair.send("destination", "Ready")
    pair.send("source", "Cancel")
    pair.deliver("destination")
    pair.deliver("source")
    assert pair.stages == {Stage.OVER}


def test_every_stage_is_reached_from_idle() -> None:
    """A row keyed by a stage that no conversation ever comes to."""
    reached = {Stage.IDLE}
    while True:
        more = {_next(*case) for case in LEGAL if case[1] in reached} - reached - {None}
        if not more:
            break
        reached |= {stage for stage in more if stage}
    assert reached == set(Stage)
