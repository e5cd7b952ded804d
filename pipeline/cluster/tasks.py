"""What Dask runs on a host: by name there, so that nothing but names and data travels."""

from collections.abc import Sequence
from functools import partial

from pipeline.cluster import ends, settling
from pipeline.cluster.dask import tell
from pipeline.cluster.ends import Ended, Order
from pipeline.cluster.settling import Left
from protocol.session import Role


def attend(order: Order) -> Ended:
    """As ends.attend, telling what is said."""
    return ends.attend(order, partial(tell, order.token, order.role))


def forbid(token: str, role: Role) -> Ended:
    """As ends.forbid, telling what is said."""
    return ends.forbid(token, role, partial(tell, token, role))


def stop(token: str, role: Role) -> bool:
    """As ends.stop."""
    return ends.stop(token, role)


def discard(token: str, hook: Sequence[str] | None, environment: dict[str, str]) -> None:
    """As ends.discard."""
    ends.discard(token, hook, environment)


def steer(token: str, bandwidth: int) -> bool:
    """As settling.steer."""
    return settling.steer(token, bandwidth)


def look_at_source(token: str) -> Left:
    """As settling.look_at_source."""
    return settling.look_at_source(token)


def closed_there(session: str) -> bytes:
    """As settling.closed_there."""
    return settling.closed_there(session)


def settle_here(session: str, peer: bytes) -> str:
    """As settling.settle_here."""
    return settling.settle_here(session, peer)
