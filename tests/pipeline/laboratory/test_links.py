"""What the system refuses of a link is told in one line, and before there are trials."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipeline.laboratory.experiment import Link
from pipeline.laboratory.links import can_shape, check_links, shaped
from protocol.errors import ConfigError
from tests.system.migrations import ROOT

FAR = Link(bandwidth=1 << 20, rtt=20)
LACKING = "links: a round-trip time needs netem, which this kernel does not have ("
needs_root = pytest.mark.skipif(
    not can_shape(), reason="links are made by root, with ip and tc of iproute2"
)
needs_capabilities = pytest.mark.skipif(
    shutil.which("setpriv") is None, reason="setpriv of util-linux takes them from a command"
)
EXPERIMENT = """
base: {guest: {kind: synthetic, memory: 8MiB}}
space: {codec: [none, zlib]}
links: [{}, {bandwidth: 20MiB}]
"""


@contextmanager
def namespace() -> Iterator[str]:
    """One that is not the laboratory's."""
    name = f"netem-{os.getpid()}"
    added = subprocess.run(["ip", "netns", "add", name], check=False, capture_output=True)
    if added.returncode:
        pytest.skip(f"no namespaces here: {added.stderr.decode().strip()}")
    try:
        yield name
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)


def kernel_has_netem() -> bool:
    """As `tc` finds out."""
    with namespace() as name:
        words = f"tc -n {name} qdisc add dev lo root netem delay 1ms".split()
        return subprocess.run(words, check=False, capture_output=True).returncode == 0


@needs_root
def test_a_round_trip_time() -> None:
    """A link that is near, where a far one was asked for."""
    if not kernel_has_netem():
        pytest.skip("this kernel has no netem")
    with shaped(FAR) as way:
        ping = [*way.here, "ping", "-c", "1", "-q", str(way.address)]
        if shutil.which("ping") is None:
            pytest.skip("no ping here")
        said = subprocess.run(ping, check=True, capture_output=True, text=True).stdout
        assert float(re.search(r"= ([0-9.]+)/", said)[1]) >= FAR.rtt  # type: ignore[index]


@needs_root
def test_a_kernel_without_netem() -> None:
    """The words of `tc` alone, which say nothing of what is missing; namespaces that are left."""
    if kernel_has_netem():
        pytest.skip("this kernel has netem")
    with pytest.raises(ConfigError, match=re.escape(LACKING)) as raised:
        check_links([Link(), FAR])
    assert "\n" not in str(raised.value)
    listed = subprocess.run(["ip", "netns", "list"], check=True, capture_output=True, text=True)
    assert f"pf-{os.getpid()}" not in listed.stdout


def test_a_round_trip_time_needs_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """A link that is near, in silence, since the sender can only be slow."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    check_links([Link(bandwidth=1 << 20)])
    with pytest.raises(ConfigError, match="links: a round-trip time needs root"):
        check_links([FAR])


@needs_root
@needs_capabilities
def test_root_who_may_make_no_links(tmp_path: Path) -> None:
    """A container's root, told by a traceback, or behind the first trials."""
    path, few = tmp_path / "x.yaml", "-sys_admin,-net_admin"
    path.write_text(EXPERIMENT)
    without = ["setpriv", "--bounding-set", few, "--inh-caps", few]
    command = [*without, sys.executable, "-m", "pipeline", "tune", str(path)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert done.stderr.startswith("pageferry: links: ip netns add ")
    assert done.stderr.endswith("Operation not permitted\n")
    assert list(tmp_path.iterdir()) == [path]
