"""A cluster of Dask's own: a scheduler and a worker started by hand, with TLS between all."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from distributed.security import Security

from pipeline.cluster.dask import written_keys
from tests.cluster.batches import batch
from tests.pipeline.guests.helpers import wait_until
from tests.system.migrations import Command

pytestmark = pytest.mark.more
GUESTS = {"g1": "a", "g2": "a", "g3": "b"}
HOSTS = {
    "a": {"address": "127.0.0.11", "guests": [{"name": "g1"}, {"name": "g2"}]},
    "b": {"address": "127.0.0.12", "guests": [{"name": "g3"}]},
    "c": {"address": "127.0.0.13"},
    "d": {"address": "127.0.0.14"},
}
WORKER = ["--nthreads", "64", "--memory-limit", "0", "--no-nanny", "--no-dashboard"]


@contextmanager
def dask(folder: Path, env: Mapping[str, str], *words: str) -> Iterator[None]:
    """One of Dask's own commands, in `folder`."""
    with (folder / f"{words[0]}.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "dask", *words], env={**os.environ, **env}, cwd=folder,
            stdout=log, stderr=log,
        )  # fmt: skip
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture
def keys(folder: Path) -> Iterator[Mapping[str, str]]:
    """How all that speak to the scheduler are told of their keys."""
    (folder / "tls").mkdir()
    told = written_keys(Security.temporary(), folder / "tls")
    for role in ("SCHEDULER", "CLIENT"):
        told |= {key.replace("WORKER", role): path for key, path in told.items() if "WORKER" in key}
    yield told
    for path in folder.iterdir():  # Dask's commands leave files there
        shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.fixture
def scheduler(folder: Path, keys: Mapping[str, str]) -> Iterator[str]:
    """Its address."""
    found = folder / "scheduler.json"
    options = ["--host", "tls://127.0.0.1", "--port", "0", "--scheduler-file", str(found)]
    with dask(folder, keys, "scheduler", *options, "--no-dashboard"):
        wait_until(lambda: found.exists() and "address" in found.read_text(), within_s=30)
        yield str(json.loads(found.read_text())["address"])


def plan(scheduler: str, **keys: Any) -> dict[str, Any]:  # noqa: ANN401
    """Two hosts are drained, over that scheduler."""
    return {"hosts": HOSTS, "drain": ["a", "b"], "scheduler": scheduler, **keys}


def test_workers_that_were_started_by_hand(
    folder: Path, scheduler: str, keys: Mapping[str, str]
) -> None:
    """A cluster that works for the embedded one alone; a worker without keys that is let in; a host
    that is missing, found when half of all is done."""
    with ExitStack() as stack, batch(folder, GUESTS, **plan(scheduler)) as moved:
        for name in "abc":
            one = ["worker", scheduler, "--resources", f"at:{name}=64", *WORKER]
            stack.enter_context(dask(folder, keys, *one))
        with Command(folder, "batch", "plan", str(moved.path), env=keys) as dry:
            assert dry.code(60) == 2
            assert f"{moved.path}:1: hosts.d: no worker of the scheduler has the resource at:d" in (
                dry.words
            )
        stack.enter_context(Command(folder, "host", "d", "--scheduler", scheduler, env=keys))
        wait_until(lambda: plan_code(moved.path, folder, keys) == 0, within_s=60)
        with Command(folder, "batch", "plan", str(moved.path)) as stranger:
            assert stranger.code(60) == 2
            assert "no keys for TLS" in stranger.words
        with Command(folder, "batch", "run", str(moved.path), env=keys) as run:
            assert run.code(120) == 0, run.words
        assert all(place in (["c"], ["d"]) for place in moved.places().values())


def plan_code(path: Path, folder: Path, keys: Mapping[str, str]) -> int:
    """Of a dry run."""
    with Command(folder, "batch", "plan", str(path), env=keys) as dry:
        return dry.code(60)
