"""The arguments of the commands, by QEMU's names and types."""

from typing import Annotated

from msgspec import Meta, Struct

MAX_INT = 2**63 - 1
Whole = Annotated[int, Meta(ge=-MAX_INT - 1)]


class Migrate(Struct):
    """Where to. The disks of the configuration move along, those with a base as what differs from
    it: `blk` and `inc` say that there are such ones."""

    uri: str
    blk: bool = False
    inc: bool = False
    detach: bool = False


class MigrateIncoming(Struct):
    """Of `migrate-incoming`: where to wait."""

    uri: str


class MigrateContinue(Struct):
    """Of `migrate-continue`: the state that is to be left."""

    state: str


class SetSpeed(Struct):
    """Of `migrate_set_speed`, in bytes/s on the wire."""

    value: Whole


class SetDowntime(Struct):
    """Of `migrate_set_downtime`, in seconds."""

    value: float


class SetCacheSize(Struct):
    """Of `migrate-set-cache-size`, in bytes."""

    value: Whole


class SetParameters(Struct, rename="kebab", omit_defaults=True):
    """Those that are given are set."""

    compress_level: Whole | None = None
    compress_threads: Whole | None = None
    decompress_threads: Whole | None = None
    max_bandwidth: Whole | None = None
    downtime_limit: Whole | None = None
    xbzrle_cache_size: Whole | None = None


class Capability(Struct):
    """One that is on or off."""

    capability: str
    state: bool


class SetCapabilities(Struct):
    """Those that are listed are set."""

    capabilities: list[Capability]
