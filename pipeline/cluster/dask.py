"""The hosts, as Dask has them: a cluster that is embedded, or one that a plan names.

A host is a worker with the resource `at:HOST`; what is to run there asks for one of it. Dask only
places and tells: whatever it does twice, or forgets, is found by the attempt's folder on the host.
"""

import os
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from logging import ERROR
from pathlib import Path
from subprocess import SubprocessError
from tempfile import TemporaryDirectory
from time import monotonic, sleep
from typing import Any

import dask
from distributed import Client, Future, LocalCluster, get_worker
from distributed.security import Security

from pipeline.batch.loading import PlanError
from pipeline.batch.plan import Host, Plan
from pipeline.cluster.launching import end, start_with_us
from pipeline.cluster.waiting import last_line
from pipeline.records.processes import Process, maybe_process

TOPIC = "pageferry"
ENDS_A_HOST = 64
"""Tasks at the same time on one host: an end of a migration holds one until it is over."""
NO_KEYS = "no keys for TLS: Dask's configuration names them, distributed.comm.tls"
UP_S = 60.0
ANSWER_S = 10.0
"""For an answer that is there to be fetched."""
EMBEDDED_CONFIG = {
    "distributed.scheduler.allowed-failures": 0,
    "distributed.scheduler.http.routes": [],  # its pages are for everybody
}
Answer = Callable[[object], None]


def resource(host: str) -> str:
    """What a worker has that stands for `host`."""
    return f"at:{host}"


def tell(token: str, role: str, said: dict[str, Any]) -> None:
    """From a task on a host: to whoever listens to the topic."""
    get_worker().log_event(TOPIC, {**said, "token": token, "role": role})


class Dask:
    """The cluster of a plan, for as long as this lasts. PlanError where it cannot be had."""

    def __init__(self, plan: Plan, folder: Path, heard: Callable[[dict[str, Any]], None]) -> None:
        self._hosts = plan.hosts
        self._folder = folder
        self._children: dict[str, Process | None] = {}
        self._environment: Mapping[str, str] = {}
        self._futures: set[Future[Any]] = set()
        self._tls: TemporaryDirectory[str] | None = None
        self._cluster: LocalCluster | None = None
        dask.config.set({"temporary-directory": str(folder)})
        if plan.is_embedded:
            self._client = self._embedded(plan.scheduler.partition(":")[2] or "127.0.0.1")
        else:
            self._client = _connected(plan.scheduler)
        self._client.subscribe_topic(TOPIC, lambda event: heard(event[1]))

    def _embedded(self, address: str) -> Client:
        """A scheduler in this process, to which nobody comes who does not have its keys: whoever
        could, could run anything here."""
        security = Security.temporary()
        self._tls = TemporaryDirectory(prefix="pageferry-tls-")
        self._environment = written_keys(security, Path(self._tls.name))
        dask.config.set(EMBEDDED_CONFIG)
        try:
            self._cluster = LocalCluster(
                n_workers=0,
                processes=False,
                host=address,
                protocol="tls",
                security=security,
                dashboard_address="127.0.0.1:0",
                scheduler_kwargs={"dashboard": False},
                silence_logs=ERROR,
            )
        except (OSError, RuntimeError, ValueError) as error:
            raise PlanError(("scheduler",), f"{address}: cannot listen there: {error}") from None
        client = Client(self._cluster)
        self.look_after()
        return client

    @property
    def cores(self) -> int | None:
        """Where all hosts are this machine, its processors."""
        return len(os.sched_getaffinity(0)) if self._cluster is not None else None

    def look_after(self) -> list[str]:
        """Start the embedded hosts that are not there; which these were."""
        if self._cluster is None:
            return []
        gone = [
            name
            for name in self._hosts
            if (process := self._children.get(name)) is None or not process.is_alive
        ]
        for name in gone:
            self._children[name] = self._start(name, self._hosts[name])
        return gone

    def _start(self, name: str, host: Host) -> Process | None:
        assert self._cluster is not None
        command = [*host.inside, sys.executable, "-m", "pipeline", "host", name]
        command += ["--scheduler", self._cluster.scheduler_address]
        try:
            pid = start_with_us(command, self._log(name), partial(_apart, self._environment))
        except (OSError, ValueError, SubprocessError) as error:
            keys = ("hosts", name, "inside")
            raise PlanError(keys, f"{' '.join(host.inside)}: {error}") from None
        return maybe_process(pid)

    def wait_until_up(self) -> None:
        """PlanError where a host of the plan has no worker, or two."""
        until = monotonic() + (UP_S if self._cluster is not None else 1)
        while missing := sorted(set(self._hosts) - set(self.up())):
            if monotonic() > until:
                raise PlanError(("hosts", missing[0]), self._why_missing(missing[0]))
            sleep(0.1)
        if twice := [host for host, count in self.up().items() if count > 1]:
            raise PlanError(
                ("hosts", twice[0]),
                f"two workers of the scheduler have the resource {resource(twice[0])}",
            )

    def _why_missing(self, name: str) -> str:
        if self._cluster is not None:
            return f"its process did not come up in {UP_S:g} s: {last_line(self._log(name))}"
        return (
            f"no worker of the scheduler has the resource {resource(name)}:"
            f" `pageferry host {name} --scheduler ADDRESS` is one"
        )

    def _log(self, name: str) -> Path:
        return self._folder / f"host-{name}.log"

    def up(self) -> Counter[str]:
        """The hosts that have a worker now, and how many each has."""
        workers = self._client.scheduler_info(n_workers=-1)["workers"].values()
        have = Counter(name for worker in workers for name in worker.get("resources", {}))
        return Counter({host: have[resource(host)] for host in self._hosts if have[resource(host)]})

    def run(
        self, host: str, function: Callable[..., object], *arguments: object, then: Answer
    ) -> None:
        """Run it on a host; `then` is called, in another thread, with what it returns or raises."""
        future = self._client.submit(
            function, *arguments, resources={resource(host): 1}, pure=False, retries=0
        )
        self._futures.add(future)  # Dask forgets a task of which nobody has the future
        future.add_done_callback(partial(self._answered, then))

    def _answered(self, then: Answer, future: "Future[Any]") -> None:
        self._futures.discard(future)
        try:
            then(future.result(timeout=ANSWER_S))
        except Exception as error:  # of the task, of its host, of Dask: no answer it is
            then(error)

    def close(self) -> None:
        """End what was started. Idempotent."""
        self._client.close()
        for process in self._children.values():
            end(process)
        self._children.clear()
        if self._cluster is not None:
            self._cluster.close()
        if self._tls is not None:
            self._tls.cleanup()


def _apart(environment: Mapping[str, str]) -> None:
    """In a session of its own: Ctrl-C at a terminal is for us, who let it finish what it is at."""
    os.setsid()
    os.environ.update(environment)


def _connected(address: str) -> Client:
    try:
        return Client(address, timeout=UP_S / 6)
    except TypeError:  # of an address that begins with tls
        raise PlanError(("scheduler",), f"{address}: {NO_KEYS}") from None
    except (OSError, TimeoutError, ValueError) as error:
        raise PlanError(("scheduler",), f"{address}: no scheduler there: {error}") from None


def written_keys(security: Security, folder: Path) -> dict[str, str]:
    """Its keys as files, and how a worker is told of them."""
    told = {"DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION": "True"}
    keys = security.get_tls_config_for_role("worker")
    for name, text in (
        ("ca-file", keys["ca_file"]),
        ("worker__cert", keys["cert"]),
        ("worker__key", keys["key"]),
    ):
        path = folder / name
        path.touch(0o600)
        path.write_text(text)
        told[f"DASK_DISTRIBUTED__COMM__TLS__{name.upper().replace('-', '_')}"] = str(path)
    return told


def check_scheduler(plan: Plan) -> None:
    """PlanError where the plan names a scheduler that lacks one of its hosts."""
    if plan.is_embedded:
        return
    with TemporaryDirectory(prefix="pageferry-") as folder:
        cluster = Dask(plan, Path(folder), lambda _: None)
        try:
            cluster.wait_until_up()
        finally:
            cluster.close()
