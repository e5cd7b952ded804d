"""A plan: many guests, many hosts, and by which rules the ones move over the others.

Its file has the same rules as a configuration: unknown keys and wrong types are errors.
"""

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from pipeline.config.fields import Between, FilePath, Rate, Size
from pipeline.config.model import Section

Argv = Annotated[tuple[str, ...], Field(strict=False, min_length=1)]
Name = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9._-]+$")]
Memory = Annotated[Size, Between(1, 1 << 50)]
Seconds = Annotated[float, Between(0.1, 1e7)]
Count = Annotated[int, Between(1, 1_000_000)]
OfHost = Annotated[int, Between(1, 30)]
"""A host's worker has 64 places: two of these, and what is asked meanwhile."""
Names = Annotated[
    tuple[Name, ...],
    Field(strict=False),
    BeforeValidator(lambda found: (found,) if isinstance(found, str) else found),
]
"""One may stand there alone, without a list."""
KEY_CHARACTERS = 40
EMBEDDED = "embedded"
_CLOCK = re.compile(r"^([01]\d|2[0-3]):[0-5]\d$")


class Hooks(Section):
    """Commands at the destination's host, before what waits is started, and when all is over."""

    before: Argv | None = None
    after: Argv | None = None


class Guest(Section):
    """A guest: `config` lies over the plan's `defaults`; memory and dirty rate (bytes, bytes/s) are
    for the forecast, where the configuration does not have them."""

    name: Name
    priority: Annotated[int, Between(-1000, 1000)] = 0
    memory: Memory | None = None
    dirty_rate: Rate | None = None
    config: Annotated[dict[str, Any], Field(default_factory=dict)]
    hooks: Hooks | None = None


class Migration(Guest):
    """A guest, where it is, and where it may go: one host, or several of which one is chosen."""

    source: Name
    destination: Annotated[Names, Field(min_length=1)]


class Host(Section):
    """A machine. `address`: where its destinations listen; `link`: bytes/s each way, 0 for one that
    nobody knows; `memory`: room for guests that come; `guests`: who lives there, for `drain`.
    `keys`: its own ones, a folder there, and `key` the public one. `inside`: what an embedded run
    puts before the command that stands for the host, as `ip netns exec a`."""

    address: Annotated[str, Field(min_length=1)] = "127.0.0.1"
    link: Rate = 0
    memory: Annotated[Size, Between(0, 1 << 50)] | None = None
    guests: Annotated[tuple[Guest, ...], Field(strict=False)] = ()
    keys: FilePath | None = None
    key: str | None = None
    inside: Annotated[tuple[str, ...], Field(strict=False)] = ()

    @field_validator("key")
    @classmethod
    def _is_a_key(cls, key: str | None) -> str | None:
        if key is not None and len(key) != KEY_CHARACTERS:
            raise ValueError(f"expected a public key, {KEY_CHARACTERS} characters")
        return key


class Limits(Section):
    """Migrations at the same time: in all; from a host; to a host; over a host's link, each way."""

    cluster: Count = 5
    per_source: OfHost = 2
    per_destination: OfHost = 2
    per_link: Count = 1_000_000


class Retries(Section):
    """How often one that failed is tried again, `backoff` seconds after the first failure and
    each time `factor` times as long; not where its reason has one of `not_on` in it."""

    most: Annotated[int, Between(0, 100)] = 3
    backoff: Seconds = 20
    factor: Annotated[float, Between(1, 10)] = 2
    not_on: Annotated[tuple[str, ...], Field(strict=False)] = ()


class Timeouts(Section):
    """Seconds: for what waits at the destination to be there, for an attempt, for a host that does
    not answer."""

    start: Seconds = 60
    attempt: Seconds = 3600
    host: Seconds = 60


class Window(Section):
    """The time of day, in UTC, in which attempts begin."""

    opens: str
    closes: str

    @field_validator("opens", "closes")
    @classmethod
    def _is_a_time(cls, text: str) -> str:
        if not _CLOCK.fullmatch(text):
            raise ValueError("expected a time of day as '22:30'")
        return text

    @model_validator(mode="after")
    def _opens(self) -> "Window":
        if self.opens == self.closes:
            raise ValueError("expected two times: it would never be open")
        return self


class Plan(Section):
    """All of it. `bandwidth`: the most of each link that is used, bytes/s each way; 0: all."""

    name: Name = "batch"
    hosts: Annotated[dict[Name, Host], Field(min_length=1)]
    migrations: Annotated[tuple[Migration, ...], Field(strict=False)] = ()
    drain: Names = ()
    defaults: Annotated[dict[str, Any], Field(default_factory=dict)]
    limits: Limits = Limits()
    bandwidth: Rate = 0
    concurrency: Count | Literal["auto"] | None = None
    retries: Retries = Retries()
    timeouts: Timeouts = Timeouts()
    order: Literal["longest-first", "shortest-first", "as-listed"] = "longest-first"
    failure_policy: Literal["continue", "stop"] | Annotated[int, Between(0, 1_000_000)] = "continue"
    window: Window | None = None
    hooks: Hooks = Hooks()
    scheduler: Annotated[str, Field(min_length=1)] = EMBEDDED

    @model_validator(mode="after")
    def _moves_something(self) -> "Plan":
        if not self.migrations and not self.drain:
            raise ValueError("expected migrations, or a host to drain")
        return self

    @property
    def most_failures(self) -> int | None:
        """So many are borne; None for any number."""
        if self.failure_policy == "continue":
            return None
        return 0 if self.failure_policy == "stop" else self.failure_policy

    @property
    def is_embedded(self) -> bool:
        """Whether all hosts are this machine, and the scheduler is ours."""
        return self.scheduler.partition(":")[0] == EMBEDDED
