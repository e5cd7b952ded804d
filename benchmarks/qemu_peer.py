"""QEMU's side: two QEMUs on this machine, the memory of one moved to the other over QMP.

The guest never runs (`-S`): its RAM is a copy of the image, which firmware may touch. It
is mapped before the clock starts, as that of a guest that has run is. RAM really travels:
`x-ignore-shared` stays off.
"""

import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.qmp import Qmp, QmpError
from benchmarks.running import (
    RUN_SECONDS,
    Measured,
    RunError,
    Settings,
    Unavailable,
    child,
    compare,
    last_line,
)

BINARY = "qemu-system-x86_64"
NO_LIMIT = 1 << 40
"""max-bandwidth in bytes a second; QEMU's default of 128 MiB/s would be what is measured."""


@dataclass(frozen=True)
class Variant:
    """What is switched on, at both ends."""

    capabilities: tuple[str, ...] = ()
    parameters: dict[str, Any] = field(default_factory=dict)


def variants(settings: Settings) -> dict[str, Variant]:
    """Every way of migrating that is compared, by its name."""
    compress = {
        "compress-level": settings.level,
        "compress-threads": settings.threads,
        "decompress-threads": settings.decompress_threads,
    }
    multifd = {"multifd-channels": settings.threads}
    zlib = {"multifd-compression": "zlib", "multifd-zlib-level": settings.level}
    zstd = {"multifd-compression": "zstd", "multifd-zstd-level": settings.level}
    return {
        "qemu-plain": Variant(),
        "qemu-compress": Variant(("compress",), compress),
        "qemu-multifd-none": Variant(("multifd",), multifd),
        "qemu-multifd-zlib": Variant(("multifd",), multifd | zlib),
        "qemu-multifd-zstd": Variant(("multifd",), multifd | zstd),
    }


def version() -> str | None:
    """The first line of what QEMU says of itself; None where it is not installed."""
    if shutil.which(BINARY) is None:
        return None
    answer = subprocess.run([BINARY, "--version"], capture_output=True, text=True, check=True)
    return answer.stdout.partition("\n")[0]


def migrate(variant: Variant, settings: Settings) -> Measured:
    """One migration between two fresh QEMUs; RunError where it fails or memory differs."""
    memory, arrived = settings.folder / "qemu-source", settings.folder / "qemu-destination"
    shutil.copyfile(settings.image, memory)
    arrived.touch()
    try:
        with (
            qemu(memory, settings, "prealloc=on") as source,
            qemu(arrived, settings, "prealloc=off", "-incoming", "defer") as destination,
        ):
            measured = move(source, destination, variant, settings.folder / "qemu.sock")
            if settings.compare:
                compare(memory, arrived)
        return measured
    finally:
        memory.unlink()
        arrived.unlink()


@contextmanager
def qemu(memory: Path, settings: Settings, prealloc: str, *extra: str) -> Iterator[Qmp]:
    """A QEMU whose RAM is the file `memory`, with its QMP session."""
    size, log = settings.image.stat().st_size, memory.with_suffix(".log")
    ram = f"memory-backend-file,id=ram,size={size}B,mem-path={memory},share=on,{prealloc}"
    ours, theirs = socket.socketpair()
    command = [
        *(BINARY, "-S", "-accel", "tcg", "-machine", "pc,memory-backend=ram"),
        *("-nodefaults", "-display", "none", "-m", f"{size}B", "-object", ram),
        *("-chardev", f"socket,id=qmp,fd={theirs.fileno()}", "-mon", "chardev=qmp,mode=control"),
        *extra,
    ]
    with closing(Qmp(ours)) as qmp, theirs, child(command, log, pass_fds=[theirs.fileno()]):
        theirs.close()
        try:
            qmp.greet()
        except RunError as error:
            raise RunError(f"{error}: {last_line(log)}") from error
        yield qmp


def move(source: Qmp, destination: Qmp, variant: Variant, path: Path) -> Measured:
    """Migrate over the UNIX socket `path`, and wait until both ends are done."""
    for end in (destination, source):
        configure(end, variant)
    destination.execute("migrate-incoming", {"uri": f"unix:{path}"})
    source.execute("migrate", {"uri": f"unix:{path}"})
    for end in (source, destination):
        if end.wait_migrated(RUN_SECONDS) != "completed":
            answer = end.execute("query-migrate")
            raise RunError(f"QEMU's migration failed: {answer.get('error-desc', 'no reason')}")
    answer = source.execute("query-migrate")
    milliseconds = answer["total-time"] - answer["setup-time"]
    return Measured(milliseconds / 1000, answer["ram"]["transferred"])


def configure(end: Qmp, variant: Variant) -> None:
    """Switch on what the variant asks for; Unavailable where this QEMU does not have it."""
    known = {entry["capability"] for entry in end.execute("query-migrate-capabilities")}
    for name in variant.capabilities:
        if name not in known:
            raise Unavailable(f"this QEMU has no {name} (9.1 removed compress)")
    switched_on = [
        {"capability": name, "state": True} for name in ("events", *variant.capabilities)
    ]
    end.execute("migrate-set-capabilities", {"capabilities": switched_on})
    try:
        end.execute("migrate-set-parameters", {"max-bandwidth": NO_LIMIT, **variant.parameters})
    except QmpError as error:
        raise Unavailable(str(error)) from error
