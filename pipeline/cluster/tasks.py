"""What Dask runs on a host: by name there, so that nothing but names and data travels."""

from functools import partial

from pipeline.cluster import ends
from pipeline.cluster.dask import tell
from pipeline.cluster.ends import Ended, Order, discard, look, stop
from pipeline.cluster.settling import end_of_source, last_word, settle_source, steer
from protocol.session import Role

__all__ = ["attend", "discard", "end_of_source", "forbid", "last_word", "look", "settle_source",
           "steer", "stop"]  # fmt: skip


def attend(order: Order) -> Ended:
    """As ends.attend, telling what is said."""
    return ends.attend(order, partial(tell, order.token, order.role))


def forbid(token: str, role: Role) -> Ended:
    """As ends.forbid, telling what is said."""
    return ends.forbid(token, role, partial(tell, token, role))
