"""The configuration of one migration: names, types, defaults, ranges. Knows no file and no line.

Frozen and strict: an unknown key or a value of the wrong type is an error. Every
error raised here is a text that says what is allowed; loading.py puts before it
where the value stands and what it was.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from pipeline.config.fields import (
    MOST_WORKERS,
    Bandwidth,
    Between,
    CacheSize,
    FilePath,
    GuestSize,
    OrAuto,
    Rate,
    UriText,
    WorkingSet,
    cache_refusal,
    cache_size,
)
from protocol.control import CodecChoice, VerifyMode
from protocol.limits import MAX_BATCH_PAGES, MAX_DISKS, PAGE_BYTES

MIB = 1 << 20
BATCH_PAGES = 256
"""1 MiB. What a batch costs besides its bytes is some 1 ms of processor time at both ends:
by 64, 128 and 256 pages a GiB took 12.5, 10.2 and 9.0 s of it with zstd; 512 gain nothing."""


def _dashed(name: str) -> str:
    return name.replace("_", "-")


def _misfit(key: str, text: str) -> PydanticCustomError:
    """The refusal of `key` of a section for what stands elsewhere."""
    return PydanticCustomError("misfit", "{text}", {"key": key, "text": text})


class Section(BaseModel):
    """Base of all sections: keys are written with dashes, values are not converted."""

    model_config = ConfigDict(
        strict=True,
        extra="forbid",
        frozen=True,
        alias_generator=_dashed,
        allow_inf_nan=False,
        validate_default=True,
    )


def _largest_working_set(memory: int) -> int:
    """In whole pages, beside which a count of 8 bytes for each of them still fits."""
    counts_a_page = PAGE_BYTES // 8
    return memory // PAGE_BYTES * counts_a_page // (counts_a_page + 1) * PAGE_BYTES


class Workload(Section):
    """How a synthetic guest writes into its memory; rates in bytes of pages a second."""

    pattern: Literal["idle", "uniform", "zipf", "sequential"] = "uniform"
    working_set: WorkingSet = 64 * MIB
    dirty_rate: Rate = 40 * MIB
    bytes_per_page: Annotated[int, Between(16, PAGE_BYTES)] = 64
    content: Literal["mixed", "zero", "text", "pointer", "random"] = "mixed"
    seed: Annotated[int, Between(0, (1 << 63) - 1)] = 1


class SyntheticGuest(Section):
    """A guest that is built in: a process with a workload, or `socket`, where one lives already."""

    kind: Literal["synthetic"]
    socket: FilePath | None = None
    memory: GuestSize = 512 * MIB
    workload: Workload = Workload()
    on_completed: Literal["keep"] = "keep"

    @field_validator("workload")
    @classmethod
    def _fits(cls, workload: Workload, info: ValidationInfo) -> Workload:
        """The default working set is cut to what fits; one that was asked for is refused."""
        most = _largest_working_set(info.data.get("memory", workload.working_set * 2))
        if workload.working_set <= most:
            return workload
        if "working_set" in workload.model_fields_set:
            raise _misfit("working-set", f"expected at most {most} bytes in this guest's memory")
        return workload.model_copy(update={"working_set": most})


class FileGuest(Section):
    """Any memory that is a file, with the pid of its writer, or quiet."""

    kind: Literal["file"]
    path: FilePath
    pid: Annotated[int, Between(1, 1 << 22)] | None = None
    on_completed: Literal["keep"] = "keep"


class QemuGuest(Section):
    """A running QEMU, by the path of a QMP socket that nobody else talks to."""

    kind: Literal["qemu"]
    qmp: FilePath
    on_completed: Literal["keep", "quit"] = "keep"


class Destination(Section):
    """Where memory lands: a file, or None for an anonymous memory file; or the `socket` at which
    a synthetic guest waits to be filled, or the `qmp` socket of a QEMU that does. Only a guest of
    that `name` is let in, None: any."""

    name: Annotated[str, Field(min_length=1, max_length=255)] | None = None
    path: FilePath | None = None
    socket: FilePath | None = None
    qmp: FilePath | None = None

    @field_validator("socket", "qmp")
    @classmethod
    def _one_place(cls, there: Path | None, info: ValidationInfo) -> Path | None:
        """A guest that waits has memory of its own."""
        others = [name for name in ("path", "socket") if info.data.get(name) is not None]
        if there is not None and others:
            raise ValueError(
                f"expected no {others[0]} beside it: the guest there has its own memory"
            )
        return there


class Disk(Section):
    """A raw image that moves along: from `path` at the source to `destination`, null: the same path
    there. Of one with a `base`, an image that both machines have, what differs from it moves."""

    path: FilePath
    destination: FilePath | None = None
    base: FilePath | None = None

    @property
    def there(self) -> Path:
        """Where it lands."""
        return self.destination or self.path


class Parameters(Section):
    """QEMU's migration parameters; bandwidth in bytes/s on the wire, the limit in ms."""

    compress_level: Annotated[int, Between(0, 9, "compress_level")] = 1
    compress_threads: Annotated[int, Between(1, MOST_WORKERS, "compress_threads"), OrAuto()] = 8
    decompress_threads: Annotated[int, Between(1, MOST_WORKERS, "decompress_threads"), OrAuto()] = 2
    max_bandwidth: Bandwidth = 0
    downtime_limit: Annotated[int, Between(0, (1 << 31) - 1, "downtime_limit")] = 300
    xbzrle_cache_size: CacheSize = 64 * MIB


class Capabilities(Section):
    """QEMU's migration capabilities; what is False for good is not built in yet."""

    compress: bool = True
    xbzrle: bool = False
    auto_converge: bool = False
    zero_blocks: bool = False
    events: bool = True
    rdma_pin_all: Literal[False] = False
    pause_before_switchover: bool = False


class Convergence(Section):
    """What is done about a migration that does not end by itself. Seconds, 0 is none; of GiB, for
    each of which a time counts, there is one at least."""

    completion_timeout: Annotated[float, Between(0, 86_400)] = 0
    progress_timeout: Annotated[float, Between(0, 86_400)] = 0
    progress_margin: Annotated[float, Between(0, 0.99)] = 0.01
    then: Literal["cancel", "switch-over", "throttle"] = "cancel"
    downtime_start: Annotated[int, Between(0, (1 << 31) - 1)] = 0
    downtime_steps: Annotated[int, Between(0, 1000)] = 0
    downtime_delay: Annotated[float, Between(0.1, 86_400)] = 75


class Security(Section):
    """Who may connect: this end's `keys`, made by `pageferry keygen`, and the public keys of the
    other end, each a file or 40 characters. Files are looked at in keys.py."""

    keys: FilePath | None = None
    peers: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(strict=False)] = ()
    insecure: bool = False


class Config(Section):
    """A whole configuration: what `pageferry run` is given."""

    name: Annotated[str, Field(min_length=1, max_length=255)] = "guest"
    guest: Annotated[SyntheticGuest | FileGuest | QemuGuest, Field(discriminator="kind")]
    destination: Destination = Destination()
    uri: UriText | None = None
    tracker: Literal["auto", "uffd", "hash"] = "auto"
    codec: CodecChoice = "zlib"
    batch_pages: Annotated[int, Between(1, MAX_BATCH_PAGES)] = BATCH_PAGES
    verify: VerifyMode = "full"
    autostart: bool = True
    commit_timeout: Annotated[float, Between(0.1, 86_400)] = 30
    parameters: Parameters = Parameters()
    capabilities: Capabilities = Capabilities()
    disks: Annotated[tuple[Disk, ...], Field(strict=False, max_length=MAX_DISKS)] = ()
    convergence: Convergence = Convergence()
    security: Security = Security()

    @property
    def effective_codec(self) -> CodecChoice:
        """The codec, or none where the capability `compress` is off."""
        return self.codec if self.capabilities.compress else "none"

    @field_validator("parameters")
    @classmethod
    def _cache_fits(cls, parameters: Parameters, info: ValidationInfo) -> Parameters:
        """The default cache is cut to the guest's memory; one that was asked for is refused."""
        guest = info.data.get("guest")
        if not isinstance(guest, SyntheticGuest) or parameters.xbzrle_cache_size <= guest.memory:
            return parameters
        if "xbzrle_cache_size" in parameters.model_fields_set:
            raise _misfit("xbzrle-cache-size", cache_refusal("exceeds guest ram size"))
        return parameters.model_copy(update={"xbzrle_cache_size": cache_size(guest.memory)})


SECTIONS: dict[str, type[Section]] = {
    "synthetic": SyntheticGuest,
    "workload": Workload,
    "file": FileGuest,
    "qemu": QemuGuest,
    "destination": Destination,
    "disks": Disk,
    "parameters": Parameters,
    "capabilities": Capabilities,
    "convergence": Convergence,
    "security": Security,
}
"""Name in a pydantic location → its model; a guest stands there under its kind."""

NOT_YET_KEYS = frozenset({"destination.data-ports"})
"""Keys that have a meaning, but not in this version: refused by name."""

NOT_YET_VALUES: dict[str, tuple[object, ...]] = {
    "guest.on-completed": ("quit",),
    "capabilities.rdma-pin-all": (True,),
}
"""Values that have a meaning, but not in this version."""
