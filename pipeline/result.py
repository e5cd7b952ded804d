"""The result of a migration: `query-migrate`'s fields and what is known beyond them.

Filled by the engine when a migration has ended. Times are milliseconds, sizes
bytes, shares 0 to 1; what was not reached is None (null).
"""

import os
import sys
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Literal

import msgspec
from msgspec import Struct, field

from protocol.limits import PAGE_BYTES
from protocol.status import Status

GuestAlive = Literal["source", "destination", "none", "unknown"]


class Part(Struct, rename="kebab", kw_only=True):
    """Base of all parts: JSON names have dashes."""


class Ram(Part):
    """Memory: bytes on the wire, bytes of guest memory, pages; rates a second."""

    transferred: int | None = None
    remaining: int | None = None
    total: int = 0
    duplicate: int | None = None
    skipped: int | None = None
    normal: int | None = None
    normal_bytes: int | None = None
    dirty_pages_rate: int | None = None
    mbps: float | None = None
    dirty_sync_count: int | None = None
    page_size: int = PAGE_BYTES
    pages_per_second: int | None = None


class Disk(Part):
    """Disks that move along, all of them: bytes on the wire, bytes of the disks."""

    transferred: int
    remaining: int
    total: int


class Compression(Part):
    """Pages that were compressed; `busy` counts batches that waited for a worker."""

    pages: int = 0
    busy: int = 0
    busy_rate: float = 0
    compressed_size: int = 0
    compression_rate: float = 0


class XbzrleCache(Part):
    """Pages sent as deltas, and the bytes of these before compression; pages that were not in the
    cache, deltas that would be no smaller than their page; rates of the last period."""

    cache_size: int
    bytes: int
    pages: int
    cache_miss: int
    cache_miss_rate: float
    encoding_rate: float
    overflow: int


class DowntimeParts(Part):
    """What the downtime went to."""

    last_round: int | None = None
    verify: int | None = None
    device_save: int | None = None
    transfer: int | None = None
    load: int | None = None
    pause: int | None = None
    start: int | None = None


class Decision(Part):
    """What was decided `ms` after the first round began, and why."""

    ms: int
    what: str
    why: str


class Shares(Part):
    """Of a stage's time: working, waiting for input, waiting for the next stage."""

    busy: float
    starved: float | None = None
    blocked: float | None = None


class Stages(Part):
    """The stages, in the order in which a page passes them."""

    scan: Shares | None = None
    compress: Shares | None = None
    send: Shares | None = None
    receive: Shares | None = None
    decompress: Shares | None = None
    write: Shares | None = None


class RoundResult(Part):
    """One round; `bytes` of guest memory, `wire_bytes` as they travelled; both a second, too."""

    round_no: int = field(name="round")
    pages: int
    zero_pages: int
    bytes: int
    wire_bytes: int
    ms: int
    dirty_pages_rate: int
    memory_rate: int | None = None
    wire_rate: int | None = None
    stages: Stages | None = None
    bottleneck: str | None = None


class Result(Part):
    """All of it. `verified`: True for full, "frames", None for off, False.

    `cpu_throttle_percentage` is the most of its processor time that was taken from the guest, and
    `cpu_throttle_by` how. `guest_gap` is the time between the guest's last stamp at the source and
    its first at the destination; `self_check` is "clean" or what is wrong.
    """

    status: Status = Status.NONE
    total_time: int | None = None
    downtime: int | None = None
    setup_time: int | None = None
    expected_downtime: int | None = None
    ram: Ram | None = None
    disk: Disk | None = None
    compression: Compression | None = None
    xbzrle_cache: XbzrleCache | None = None
    cpu_throttle_percentage: int | None = None
    cpu_throttle_by: str | None = None
    name: str | None = None
    session: str | None = None
    verified: bool | Literal["frames"] | None = None
    guest_alive: GuestAlive | None = None
    tracker: str | None = None
    tracker_reason: str | None = None
    rounds: list[RoundResult] = []
    downtime_parts: DowntimeParts | None = None
    stages: Stages | None = None
    bottleneck: str | None = None
    decisions: list[Decision] = []
    guest_dirty_rate: float | None = None
    guest_gap: float | None = None
    self_check: str | None = None
    redone: int = 0
    error_desc: str | None = None


def verified(verify: str) -> bool | Literal["frames"] | None:
    """What a completed migration with `verify: full | frames | off` says of its memory."""
    if verify == "full":
        return True
    return "frames" if verify == "frames" else None


def ratio(result: Result) -> float | None:
    """Bytes of the pages that were sent with their content, whole or as deltas, by all bytes on the
    wire, as progress has it; None where nothing travelled. Zero pages and skipped ones take next to
    none of them."""
    ram, deltas = result.ram, result.xbzrle_cache
    sent = (ram.normal_bytes or 0) if ram is not None else 0
    sent += deltas.pages * PAGE_BYTES if deltas is not None else 0
    return sent / ram.transferred if ram is not None and sent and ram.transferred else None


def encode_result(result: Result) -> str:
    """`result` as indented JSON with a line end."""
    return msgspec.json.format(msgspec.json.encode(result), indent=2).decode() + "\n"


def write_whole(text: str, path: str) -> None:
    """`text` to the file `path`, whole or not at all; "-" is standard output.

    What is no regular file (a pipe, /dev/null) is written to, not replaced. OSError
    where that cannot be done.
    """
    target = Path(path).resolve()
    if path == "-":
        write_out(text)
    elif target.exists() and not target.is_file():
        target.write_text(text)
    else:
        _replace(target, text)


def write_out(text: str) -> None:
    """`text` to standard output, all of it now; OSError where that is closed or full."""
    if sys.stdout is None:
        raise OSError("standard output is closed")
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nor at the exit again
        raise


def _replace(target: Path, text: str) -> None:
    with NamedTemporaryFile("w", dir=target.parent, prefix=".pageferry-", delete=False) as file:
        temporary = Path(file.name)
        try:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
            temporary.chmod(0o644)
            temporary.replace(target)
        except BaseException:
            temporary.unlink()
            raise


def why_not_good(result: Result) -> str | None:
    """Why it failed, was cancelled, or left a guest that is wrong; None where all is well."""
    if exit_code(result) == 0:
        return None
    mismatch = "the memory that arrived differs" if result.verified is False else None
    return result.error_desc or mismatch or result.self_check


def exit_code(result: Result) -> int:
    """0 completed, verified as far as asked for and clean, or nothing asked for; 130 cancelled;
    else 1."""
    if result.status is Status.CANCELLED:
        return 130
    if result.status is Status.NONE:
        return 0
    good = result.verified is not False and result.self_check in (None, "clean")
    return 0 if result.status is Status.COMPLETED and good else 1
