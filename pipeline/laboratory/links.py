"""Two places on this machine with a link between them: network namespaces, shaped by `tc`.

Only root may make them; others have what they send limited by the sender itself.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pipeline.laboratory.experiment import Link
from pipeline.records.processes import maybe_process
from protocol.errors import ConfigError

HERE, THERE = "192.0.2.1", "192.0.2.2"
"""A net for examples: no real one has it."""
BURST_MS = 5
"""What may go at once, after a pause; the kernel takes no less than a packet or two."""
LATENCY_MS = 50
_NOT_IN_KERNEL = ("qdisc kind is unknown", "No such file or directory")
"""How `tc`, now and formerly, says that the kernel has no such thing."""
_NAME = re.compile(r"^pf-\d+[ab]\b", re.MULTILINE)
_NUMBER = re.compile(r"\D")


@dataclass(frozen=True)
class Shaped:
    """A link that is there: what runs a command at either end, and by what it is made slow."""

    here: tuple[str, ...] = ()
    there: tuple[str, ...] = ()
    address: str | None = None
    by: str | None = None


def can_shape() -> bool:
    """Whether namespaces can be made here, as far as looking tells."""
    return os.geteuid() == 0 and shutil.which("ip") is not None and shutil.which("tc") is not None


@contextmanager
def shaped(link: Link) -> Iterator[Shaped]:
    """`link`, while this lasts. ConfigError where the system does not make it."""
    if not link.bandwidth and not link.rtt:
        yield Shaped()
    elif not can_shape():
        if link.rtt:
            raise ConfigError("links: a round-trip time needs root, and the commands ip and tc")
        yield Shaped(by="sender")
    else:
        with _namespaces(link) as made:
            yield made


def check_links(links: Iterable[Link]) -> None:
    """Make each once, and let go of it: ConfigError, before there are trials, where one cannot be
    had here."""
    for link in links:
        with shaped(link):
            pass


@contextmanager
def _namespaces(link: Link) -> Iterator[Shaped]:
    here, there = (f"pf-{os.getpid()}{end}" for end in "ab")
    try:
        for name in (here, there):
            _do("ip", "netns", "add", name)
        _do(*f"ip link add a0 netns {here} type veth peer name b0 netns {there}".split())
        for name, device, address in ((here, "a0", HERE), (there, "b0", THERE)):
            _do("ip", "-n", name, "address", "add", f"{address}/24", "dev", device)
            _do("ip", "-n", name, "link", "set", device, "up")
            _do("ip", "-n", name, "link", "set", "lo", "up")
            _shape(name, device, link)
        inside = ("ip", "netns", "exec")
        yield Shaped((*inside, here), (*inside, there), THERE, "tc")
    finally:
        for name in (here, there):
            _said("ip", "netns", "delete", name)


def remove_left() -> None:
    """Remove the namespaces of commands that were killed."""
    for name in _NAME.findall(_said("ip", "netns", "list") if can_shape() else ""):
        if maybe_process(int(_NUMBER.sub("", name))) is None:
            _said("ip", "netns", "delete", name)


def _said(*words: str) -> str:
    return subprocess.run(words, check=False, capture_output=True, text=True).stdout


def _shape(name: str, device: str, link: Link) -> None:
    """Bandwidth by tbf; half of the round-trip time at each end by netem, where the kernel has
    it."""
    add = ("tc", "-n", name, "qdisc", "add", "dev", device)
    parent: tuple[str, ...] = ("root", "handle", "1:")
    if link.bandwidth:
        burst = max(16_384, link.bandwidth * BURST_MS // 1000)
        rate = ("rate", f"{link.bandwidth * 8}bit", "burst", str(burst))
        _do(*add, *parent, "tbf", *rate, "latency", f"{LATENCY_MS}ms")
        parent = ("parent", "1:")
    if link.rtt:
        _delay(*add, *parent, "netem", "delay", f"{link.rtt / 2:g}ms")


def _delay(*words: str) -> None:
    said = _maybe_refusal(words)
    if said is None:
        return
    if any(one in said for one in _NOT_IN_KERNEL):
        said = f"a round-trip time needs netem, which this kernel does not have ({said})"
    raise ConfigError(f"links: {said}")


def _do(*words: str) -> None:
    if (said := _maybe_refusal(words)) is not None:
        raise ConfigError(f"links: {' '.join(words)}: {said}")


def _maybe_refusal(words: tuple[str, ...]) -> str | None:
    """What a command says that fails, in one line; None where it does not."""
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    return (done.stderr.strip() or "no word of it").splitlines()[-1] if done.returncode else None
