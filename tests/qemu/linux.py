"""A Linux guest: Debian's kernel, and a first program that checks files of its own for ever.

It says what the guest of `sector.py` says: "up", heartbeats "t COUNTER SECONDS" (by its own
clock), "bad FILE"; and "round N" when it has looked at all files once more. One with a disk reads
that for ever, too, and says "bad disk", and "disk N" when it has looked at all of it once more.
"""

import hashlib
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

COMMAND_LINE = "console=ttyS0 rdinit=/init loglevel=0 panic=-1"
INIT = r"""#!/bin/busybox sh
busybox=/bin/busybox
$busybox mkdir /proc /dev /files
$busybox mount -t proc proc /proc
$busybox mount -t devtmpfs dev /dev
$busybox mount -t tmpfs files /files
$busybox --install -s /bin
exec < /dev/null > /dev/ttyS0 2>&1
cd /files

make() {  # the sum is of what was written, not of what arrived
    if [ $(($1 % 2)) = 0 ]; then yes "kept $1"; else cat /dev/urandom; fi |
        head -c FILE_BYTES | tee $1 | md5sum > $1.sum
}

heart() {  # one process for ever: it waits at a pipe that nobody writes to
    mkfifo /quiet
    exec 3<> /quiet
    t=0
    while :; do
        t=$((t + 1))
        read -r seconds idle < /proc/uptime
        printf 't %08X %s\n' $t $seconds
        read -r -t 0.01 -u 3 nothing
    done
}

for i in $(seq 0 LAST_FILE); do make $i; done
echo up
heart &
[ ! -e /disk ] || sh /disk &
round=0
while :; do
    for i in $(seq 0 LAST_FILE); do
        [ "$(md5sum < $i)" = "$(cat $i.sum)" ] || echo "bad $i"
        [ $((i % 2)) = 0 ] || make $i
    done
    round=$((round + 1))
    echo "round $round"
done
"""
DISK = r"""
for driver in DRIVERS; do insmod /drivers/$driver; done
exec 3< /dev/vda  # while somebody has it open, what was read of it stays in memory
blockdev --setra READ_AHEAD /dev/vda
pass=0
while :; do
    echo 1 > /proc/sys/vm/drop_caches
    cat /dev/vda > /dev/null  # lands; what is summed is what stayed
    sum=$(md5sum < /dev/vda)
    [ "$sum" = "SUM  -" ] || echo "bad disk"
    pass=$((pass + 1))
    echo "disk $pass"
done
"""
READ_AHEAD_SECTORS = 32768
"""16 MiB: the more is in flight at once, the longer each read of it takes."""


@dataclass(frozen=True)
class Disk:
    """An image whose content lands in a guest's memory by direct I/O, past its processor.

    How much a tracker misses depends on the disk that has it: `uffd` 99 to 1,885 pages a
    migration at 20 MB/s, none in 12 migrations at 2.5 GB/s.
    """

    image: Path
    drivers: tuple[Path, ...]

    @property
    def options(self) -> tuple[str, ...]:
        """Those that attach it, to two machines at once."""
        drive = f"if=none,id=disk,format=raw,cache=none,readonly=on,file={self.image}"
        return ("-drive", drive, "-device", "virtio-blk-pci,drive=disk")

    @property
    def programs(self) -> dict[str, bytes]:
        """What the guest reads it with."""
        given = {
            "DRIVERS": " ".join(driver.name for driver in self.drivers),
            "READ_AHEAD": str(READ_AHEAD_SECTORS),
            "SUM": hashlib.md5(self.image.read_bytes()).hexdigest(),
        }
        drivers = {f"drivers/{driver.name}": driver.read_bytes() for driver in self.drivers}
        return {"disk": _filled(DISK, given), **drivers}


@dataclass(frozen=True)
class Linux:
    """A guest that boots from `kernel`; half of its `files` it writes anew in each round."""

    kernel: Path
    busybox: Path
    mib: int = 256
    files: int = 32
    file_bytes: int = 256 << 10
    disk: Disk | None = None

    def boot(self, folder: Path, _: str) -> list[str]:
        """Options that boot it from files, never from its disk."""
        archive = folder / "initramfs"
        archive.write_bytes(self._initramfs())
        words = ("-kernel", str(self.kernel), "-initrd", str(archive), "-append", COMMAND_LINE)
        return [*words, "-no-reboot", *(self.disk.options if self.disk else ())]

    def _initramfs(self) -> bytes:
        given = {"LAST_FILE": str(self.files - 1), "FILE_BYTES": str(self.file_bytes)}
        programs = {"bin/busybox": self.busybox.read_bytes(), "init": _filled(INIT, given)}
        return cpio(programs | (self.disk.programs if self.disk else {}))


def _filled(script: str, given: Mapping[str, str]) -> bytes:
    for name, value in given.items():
        script = script.replace(name, value)
    return script.encode()


class Entry(NamedTuple):
    """One of an archive's."""

    name: str
    mode: int
    data: bytes = b""

    def encode(self, ino: int) -> bytes:
        """As "newc" has it (kernel, Documentation/driver-api/early-userspace/buffer-format)."""
        name = self.name.encode() + b"\0"
        fields = [ino, self.mode, 0, 0, 1, 0, len(self.data), 0, 0, 0, 0, len(name), 0]
        head = b"070701" + b"".join(b"%08X" % field for field in fields)
        return _padded(head + name) + _padded(self.data)


def cpio(programs: Mapping[str, bytes]) -> bytes:
    """An archive of programs, with the folders that they are in."""
    folders = sorted({str(parent) for name in programs for parent in Path(name).parents} - {"."})
    entries = [
        *(Entry(name, stat.S_IFDIR | 0o755) for name in folders),
        *(Entry(name, stat.S_IFREG | 0o755, data) for name, data in programs.items()),
        Entry("TRAILER!!!", 0),
    ]
    return b"".join(entry.encode(ino) for ino, entry in enumerate(entries, 1))


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
