"""A kernel and a busybox of Debian's: those that are installed, else from its archive.

What was fetched stays in the user's cache, unpacked, a folder a package.
"""

import os
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

FETCH_S = 300
KERNEL = "linux-image-cloud-amd64"
BUSYBOX = "busybox-static"
DISK_DRIVERS = (
    *("virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci"),
    "virtio_blk",
)
"""In the order in which they can be loaded."""
INTERPRETER = b"/ld-linux"
"""What a program has in it that needs shared libraries."""


class Unavailable(Exception):
    """The reason why there is no such package."""


def kernel() -> Path:
    """A bzImage with the drivers of a virtual machine."""
    image = "vmlinuz-*-cloud-amd64"
    installed = sorted(Path("/boot").glob(image))
    return (installed or sorted((unpacked(_image_package()) / "boot").glob(image)))[-1]


def disk_drivers(image: Path) -> tuple[Path, ...]:
    """What a kernel of Debian's loads for a virtio disk, without what is built in."""
    version = image.name.removeprefix("vmlinuz-")
    modules = image.parents[1] / "lib/modules" / version / "kernel/drivers"
    found = [sorted(modules.glob(f"*/{name}.ko*")) for name in DISK_DRIVERS]
    return tuple(paths[0] for paths in found if paths)


def busybox() -> Path:
    """A program that is its own libraries."""
    installed = Path("/bin/busybox")
    if installed.exists() and INTERPRETER not in installed.read_bytes():
        return installed
    return unpacked(BUSYBOX) / "bin/busybox"


def unpacked(package: str) -> Path:
    """The folder with the files of a package; Unavailable when it cannot be had."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "pageferry-tests")
    cache.mkdir(parents=True, exist_ok=True)
    if not (cache / package).exists():
        with TemporaryDirectory(dir=cache) as name:
            _said(["apt-get", "download", "-q", package], Path(name))
            _said(["dpkg-deb", "-x", *map(str, Path(name).glob("*.deb")), "files"], Path(name))
            Path(name, "files").rename(cache / package)
    return cache / package


def _image_package() -> str:
    """The package of this day's kernel, which the one with the lasting name depends on."""
    words = _said(["apt-cache", "depends", KERNEL], Path("/")).split()
    found = [word for word in words if word.startswith("linux-image-") and word != KERNEL]
    if not found:
        raise Unavailable(f"no package is known as {KERNEL}")
    return found[0]


def _said(command: list[str], where: Path) -> str:
    try:
        done = subprocess.run(
            command, cwd=where, capture_output=True, text=True, timeout=FETCH_S, check=True
        )
    except subprocess.CalledProcessError as error:
        raise Unavailable(f"{' '.join(command)}: {error.stderr.strip()}") from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"{' '.join(command)}: {error}") from None
    return done.stdout
