"""Two machines and a link between them, made of the kernel's network namespaces."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count

import pytest

HERE, THERE = "192.0.2.1", "192.0.2.2"
"""The addresses of the source's and of the destination's machine: a net for examples."""
_numbers = count()

needs_namespaces = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("ip") is None,
    reason="network namespaces are made by root, with the command `ip` of iproute2",
)


@dataclass(frozen=True)
class Machine:
    """A namespace with an end of the link."""

    name: str
    device: str
    address: str

    @property
    def inside(self) -> tuple[str, ...]:
        """What runs a command there."""
        return ("ip", "netns", "exec", self.name)


@dataclass(frozen=True)
class Network:
    """The source's machine and the destination's."""

    here: Machine
    there: Machine

    def cut(self) -> None:
        """From now on nothing arrives, and nobody is told."""
        _ip("-n", self.here.name, "link", "set", self.here.device, "down")

    def mend(self) -> None:
        """The link is as it was."""
        _ip("-n", self.here.name, "link", "set", self.here.device, "up")


@contextmanager
def network() -> Iterator[Network]:
    """The two machines; both are gone afterwards."""
    stem = f"pf{os.getpid()}n{next(_numbers)}"
    here, there = (Machine(f"{stem}{end}", f"{end}0", address)
                   for end, address in (("a", HERE), ("b", THERE)))  # fmt: skip
    try:
        for one in (here, there):
            _ip("netns", "add", one.name)
            _ip("-n", one.name, "link", "set", "lo", "up")
        peer = ("peer", "name", there.device, "netns", there.name)
        _ip("link", "add", here.device, "netns", here.name, "type", "veth", *peer)
        for one in (here, there):
            _ip("-n", one.name, "address", "add", f"{one.address}/24", "dev", one.device)
            _ip("-n", one.name, "link", "set", one.device, "up")
        yield Network(here, there)
    finally:
        for one in (here, there):
            subprocess.run(["ip", "netns", "delete", one.name], check=False, capture_output=True)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)
