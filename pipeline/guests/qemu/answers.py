"""What a QEMU answers, as far as it is used here: what its JSON is converted to."""

from msgspec import Struct


class Answer(Struct, frozen=True, rename="kebab"):
    """Base of an answer; fields that are not named here are passed over."""


class RunState(Answer, frozen=True):
    """Of query-status."""

    status: str


class OwnMigration(Answer, frozen=True):
    """Of query-migrate."""

    status: str = "none"
    error_desc: str = ""
    blocked_reasons: tuple[str, ...] = ()
    socket_address: tuple[object, ...] = ()
    """Where it listens for one that comes."""

    @property
    def is_under_way(self) -> bool:
        """Whether it has begun and not ended."""
        return self.status not in ("none", "completed", "failed", "cancelled")


class Capability(Answer, frozen=True):
    """One of query-migrate-capabilities."""

    capability: str
    state: bool


class Limits(Answer, frozen=True):
    """Of query-migrate-parameters: bytes a second, and ms; what its migrations are encrypted by."""

    max_bandwidth: int
    downtime_limit: int
    tls_creds: str | None = None


class Processor(Answer, frozen=True):
    """One of query-cpus-fast."""

    thread_id: int


class Property(Answer, frozen=True):
    """One of qom-list."""

    name: str
    type: str


class Target(Answer, frozen=True):
    """Of query-target."""

    arch: str


class MemorySizes(Answer, frozen=True):
    """Of query-memory-size-summary, in bytes."""

    base_memory: int
    plugged_memory: int = 0


class Cache(Answer, frozen=True):
    """How a node of the block layer uses the host's cache."""

    direct: bool


class Node(Answer, frozen=True):
    """One of query-named-block-nodes; `node_name` begins with # where nobody has given it one."""

    node_name: str
    file: str
    cache: Cache


class Medium(Answer, frozen=True):
    """What is in a drive."""

    ro: bool


class Drive(Answer, frozen=True):
    """One of query-block."""

    inserted: Medium | None = None
