"""Hosts as network namespaces: each has its own address, and a link to one switch."""

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

NET = "198.51.100"
"""A net for examples."""
SWITCH = f"{NET}.254"


class Rack:
    """The hosts `names`; `link` is what each can send, bytes a second."""

    def __init__(self, names: Sequence[str], link: int) -> None:
        self._stem = f"pf{os.getpid()}"
        self._link = link
        self._bridge = f"{self._stem}s"
        self.names = names

    def build(self) -> None:
        """Make them."""
        _ip("link", "add", self._bridge, "type", "bridge")
        _ip("address", "add", f"{SWITCH}/24", "dev", self._bridge)
        _ip("link", "set", self._bridge, "up")
        for number, name in enumerate(self.names, 1):
            self._add(name, number)

    def _add(self, name: str, number: int) -> None:
        space, port = self.space(name), self._port(name)
        _ip("netns", "add", space)
        _ip("link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", space)
        _ip("link", "set", port, "master", self._bridge, "up")
        _ip("-n", space, "link", "set", "lo", "up")
        _ip("-n", space, "address", "add", f"{NET}.{number}/24", "dev", "eth0")
        _ip("-n", space, "link", "set", "eth0", "up")
        rate = f"rate {self._link * 8}bit burst {max(65536, self._link // 50)} latency 50ms"
        _run("tc", "-n", space, *["qdisc", "add", "dev", "eth0", "root", "tbf"], *rate.split())

    def space(self, name: str) -> str:
        """The namespace of a host."""
        return f"{self._stem}{name}"

    def _port(self, name: str) -> str:
        return f"{self._stem}p{name}"

    def host(self, name: str) -> dict[str, object]:
        """What a plan says of it."""
        inside = ["ip", "netns", "exec", self.space(name)]
        address = f"{NET}.{list(self.names).index(name) + 1}"
        return {"address": address, "inside": inside, "link": self._link}

    def cut(self, name: str) -> None:
        """From now on nothing gets to it, or from it, and nobody is told."""
        _ip("link", "set", self._port(name), "nomaster")

    def mend(self, name: str) -> None:
        """It is as it was."""
        _ip("link", "set", self._port(name), "master", self._bridge)

    def remove(self) -> None:
        """All of it."""
        for name in self.names:
            subprocess.run(["ip", "netns", "delete", self.space(name)], check=False)
        subprocess.run(["ip", "link", "delete", self._bridge], check=False)


@contextmanager
def rack(names: Sequence[str], link: int) -> Iterator[Rack]:
    """The hosts, while this lasts."""
    made = Rack(names, link)
    try:
        made.build()
        yield made
    finally:
        made.remove()


def _ip(*words: str) -> None:
    _run("ip", *words)


def _run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True)
