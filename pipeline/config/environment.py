"""Whether this machine has what a configuration asks for; looks, and changes nothing.

Each refusal is one line that names the key, what was found and what would do.
"""

import os
import resource
from collections.abc import Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from pipeline.config.model import Config, Disk, FileGuest, QemuGuest, SyntheticGuest
from protocol.errors import ConfigError
from protocol.limits import PAGE_BYTES
from workers.packages import missing_package

FILES, FILES_A_WORKER = 64, 8
"""Open files, with room: a command was seen to have 23 and 4 for each of its workers, a worker
20 and 3 for each of the other end's that it is connected to."""
NO_GUEST = "no guest listens at {}: start one by `pageferry guest`"
NO_QEMU = "no QEMU listens at {}: -qmp unix:{},server=on,wait=off"


def check_environment(config: Config, *, source: bool, destination: bool) -> None:
    """ConfigError for what is missing here, for the ends that are to run on this machine."""
    check_codec(config.effective_codec)
    is_qemu, waits = isinstance(config.guest, QemuGuest), config.destination.qmp is not None
    if is_qemu or waits:
        check_packages("kind: qemu", "qemu.qmp")
    if source and destination and is_qemu != waits:
        raise ConfigError(
            f"destination.qmp: {'found' if waits else 'found none'}, expected"
            f" {'the socket of a QEMU that waits' if is_qemu else 'none'} for guest.kind"
            f" {config.guest.kind}"
        )
    if source:
        check_pace(config)
    _allow_open_files(config)
    try:
        _check_paths(config, source=source, destination=destination)
    except (OSError, ValueError) as error:  # a name too long, or with a NUL
        raise ConfigError(f"a path that cannot be: {error}") from None


def check_pace(config: Config) -> None:
    """ConfigError for a guest that is to be slowed down and cannot be."""
    if not isinstance(config.guest, FileGuest):
        return
    refusal = "memory that is a file has no processors to take time from"
    if config.capabilities.auto_converge:
        raise ConfigError(f"capabilities.auto-converge: {refusal}")
    if config.convergence.then == "throttle":
        raise ConfigError(f"convergence.then: {refusal}")


def _check_paths(config: Config, *, source: bool, destination: bool) -> None:
    if source and isinstance(config.guest, FileGuest):
        _check_guest(config.guest)
    if source and isinstance(config.guest, SyntheticGuest):
        _check_socket("guest.socket", config.guest.socket, NO_GUEST)
    if source and isinstance(config.guest, QemuGuest):
        _check_socket("guest.qmp", config.guest.qmp, NO_QEMU)
    if destination:
        _check_socket("destination.socket", config.destination.socket, NO_GUEST)
        _check_socket("destination.qmp", config.destination.qmp, NO_QEMU)
    target = config.destination.path
    if destination and target is not None:
        _check_target("destination.path", target)
        if source and isinstance(config.guest, FileGuest) and target.exists():
            _check_different("destination.path", config.guest.path, target)
    for number, disk in enumerate(config.disks):
        _check_disk(f"disks.{number}", disk, source=source, destination=destination)
    if destination:
        check_places(config.disks, () if target is None else (target,))


def _check_disk(key: str, disk: Disk, *, source: bool, destination: bool) -> None:
    if source:
        _check_image(f"{key}.path", disk.path)
    if disk.base is not None:
        _check_image(f"{key}.base", disk.base)
    if destination:
        _check_target(f"{key}.destination", disk.there)
        for other in filter(None, (disk.path if source else None, disk.base)):
            if disk.there.exists():
                _check_different(f"{key}.destination", other, disk.there)


def check_places(disks: Sequence[Disk], others: Sequence[Path] = ()) -> None:
    """ConfigError where a disk would land in a base, in one of `others`, or where another one does:
    nothing has been changed by then."""
    taken = {*(disk.base.resolve() for disk in disks if disk.base), *(o.resolve() for o in others)}
    known = [place.stat() for place in taken if place.exists()]
    for number, disk in enumerate(disks):
        place = disk.there.resolve()
        same = place.exists() and any(os.path.samestat(place.stat(), one) for one in known)
        if place in taken or same:
            raise ConfigError(
                f"disks.{number}.destination: {disk.there} is another one's, or a base"
            )
        taken.add(place)


def _check_image(key: str, path: Path) -> None:
    if not path.is_file():
        found = "is not a regular file" if path.exists() else "does not exist"
        raise ConfigError(f"{key}: {path} {found}, expected a raw image")
    if not os.access(path, os.R_OK):
        raise ConfigError(f"{key}: {path} cannot be read")


def _allow_open_files(config: Config) -> None:
    """Raise the limit of open files as far as the workers need it; ConfigError where we may not."""
    threads = config.parameters.compress_threads + config.parameters.decompress_threads
    needed = FILES + FILES_A_WORKER * threads
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise ConfigError(f"the limit of open files is {hard}, {needed} are needed: ulimit -n")
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def check_codec(codec: str) -> None:
    """ConfigError where the package that `codec` needs is not installed."""
    if (package := missing_package(codec)) is not None:
        raise _needs(f"codec: {codec}", [package])


def check_packages(what: str, *packages: str) -> None:
    """ConfigError, where `what` needs packages that are not installed."""
    if missing := [package for package in packages if not _is_installed(package)]:
        raise _needs(what, missing)


def _is_installed(package: str) -> bool:
    with suppress(ModuleNotFoundError):  # of a package in none
        return find_spec(package) is not None
    return False


def _needs(what: str, packages: list[str]) -> ConfigError:
    named = f"package{'s' * (len(packages) > 1)} {', '.join(packages)}"
    return ConfigError(f"{what} needs the {named}: pip install {' '.join(packages)}")


def _check_guest(guest: FileGuest) -> None:
    path = guest.path
    if not path.is_file():
        found = "is not a regular file" if path.exists() else "does not exist"
        raise ConfigError(f"guest.path: {path} {found}, expected the file with the guest's memory")
    if not os.access(path, os.R_OK):
        raise ConfigError(f"guest.path: {path} cannot be read")
    size = path.stat().st_size
    if size == 0 or size % PAGE_BYTES:
        raise ConfigError(
            f"guest.path: {path} has {size} bytes, expected a multiple of {PAGE_BYTES}, not 0"
        )
    if guest.pid is not None and not Path(f"/proc/{guest.pid}").exists():
        raise ConfigError(f"guest.pid: found {guest.pid}, expected the pid of a running process")


def _check_socket(key: str, path: Path | None, nobody: str) -> None:
    if path is not None and not path.is_socket():
        raise ConfigError(f"{key}: {nobody.format(path, path)}")


def _check_target(key: str, target: Path) -> None:
    if target.exists():
        if not target.is_file():
            raise ConfigError(f"{key}: {target} is not a regular file")
        writable, what = os.access(target, os.W_OK), target
    else:
        what = target.parent
        if not what.is_dir():
            raise ConfigError(f"{key}: there is no folder {what} to make the file in")
        writable = os.access(what, os.W_OK | os.X_OK)
    if not writable:
        raise ConfigError(f"{key}: {what} cannot be written")


def _check_different(key: str, source: Path, target: Path) -> None:
    if source.samefile(target):
        raise ConfigError(f"{key}: {target} is {source} itself: another path is needed")
