"""A machine that writes faster than its pages travel gets less processor time, and has it back."""

import os
from contextlib import ExitStack
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest

from pipeline.guests.qemu.processor_time import ProcessorTime, maybe_parent
from pipeline.leftovers.cleanup import cleanup
from tests.leaks import processes_of
from tests.pipeline.guests.helpers import wait_until
from tests.qemu.machine import Qemu
from tests.qemu.pairs import Pair, config_of, needs_qemu
from tests.qemu.sector import Guest
from tests.system.migrations import Command

pytestmark = needs_qemu

WRITES = Guest(mib=16, working=range(1024, 2048), dirty_rate=2000, tick_ms=5)
"""8 MiB a second, in pages that do not shrink where nothing compresses them."""
BUSY = Guest(mib=16, working=range(1024, 2048), checks=1 << 30)
"""One whose processor never rests."""
LINK = {"max-bandwidth": "4MiB", "downtime-limit": 200}
NO_GROUPS = ("unshare", "-m", "sh", "-c", 'umount -a -t cgroup,cgroup2; exec "$@"', "sh")
MEASURED_S = 1.0


def processors(machine: Qemu) -> list[int]:
    """Their threads."""
    return [one["thread-id"] for one in machine.monitor.ask("query-cpus-fast")]


def limit(machine: Qemu) -> ProcessorTime:
    """What takes time from the machine's processors; the test is skipped where nothing can."""
    pid, (thread,) = machine.process.pid, processors(machine)
    parent = maybe_parent(pid, thread)
    if parent is None:
        pytest.skip("no cgroup can be made here for the threads of a process")
    return ProcessorTime(pid, {thread: parent})


def share(machine: Qemu) -> float:
    """Of a processor, that the machine's only one gets."""
    (thread,) = processors(machine)
    path, began = Path(f"/proc/{machine.process.pid}/task/{thread}/schedstat"), monotonic()
    before = int(path.read_text().split()[0])
    sleep(MEASURED_S)
    return (int(path.read_text().split()[0]) - before) / 1e9 / (monotonic() - began)


def test_its_processors_have_less_time(folder: Path) -> None:
    """A limit that is written and does nothing, or that stays."""
    with Qemu(folder, "here", BUSY) as machine, ExitStack() as undo:
        throttle = limit(machine)
        undo.callback(throttle.release)
        machine.wait_up()
        whole = share(machine)
        shares = []
        for percent in (20, 80, 99):
            throttle.take(percent)
            sleep(0.2)
            shares.append(share(machine))
        assert shares[1] < 0.25
        assert shares[2] < 0.03
        assert shares[0] < 0.83
        throttle.release()
        throttle.release()
        wait_until(lambda: share(machine) > 0.5 * whole, within_s=20)  # others may be busy
        (thread,) = processors(machine)
        assert "pageferry" not in Path(f"/proc/{thread}/cgroup").read_text()


def config(here: Qemu, there: Qemu, **keys: Any) -> dict[str, Any]:  # noqa: ANN401
    """Of a machine that writes twice what the link carries."""
    keys = {"parameters": LINK, "capabilities": {"auto-converge": True}, **keys}
    return config_of(here, there, codec="none", verify="frames", **keys)


def group_of(machine: Qemu) -> str:
    """The cgroups of its first processor, as the kernel has them."""
    return Path(f"/proc/{processors(machine)[0]}/cgroup").read_text()


@pytest.mark.timeout(120)
def test_it_converges_by_turns(folder: Path) -> None:
    """A machine where no cgroup can be made, and which is stopped for ever, or runs twice."""
    with (
        Qemu(folder, "here", WRITES) as here,
        Qemu(folder, "there", WRITES, incoming=True) as there,
    ):
        moved = Pair(here, there)
        with Command(folder, "run", config=config(here, there), inside=NO_GROUPS) as run:
            assert run.code(within_s=90) == 0, run.words
            result = run.result()
        moved.assert_moved(10)
        assert result.cpu_throttle_by == "stop and cont"
        assert [one.why.split(" %")[0] for one in result.decisions][:2] == ["20", "30"]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("inside", [(), NO_GROUPS], ids=["group", "turns"])
@pytest.mark.parametrize("end", ["timeout", "kill"])
def test_it_has_its_time_back(folder: Path, inside: tuple[str, ...], end: str) -> None:
    """A machine that stays slow, or stands still, when its migration is over."""
    policy = {"completion-timeout": 9 if end == "timeout" else 0}
    with (
        Qemu(folder, "here", WRITES) as here,
        Qemu(folder, "there", WRITES, incoming=True) as there,
    ):
        stays = Pair(here, there)
        if not inside:
            limit(here)
        before = group_of(here)
        moving = config(here, there, convergence=policy, parameters={**LINK, "downtime-limit": 1})
        with Command(folder, "run", config=moving, inside=inside) as run:
            run.wait_for("throttle 30 %")
            if not inside:
                assert f"pageferry-{here.process.pid}" in group_of(here)
            if end == "kill":
                os.kill(run.process.pid, 9)
                run.process.wait()
                wait_until(lambda: all(p.name().startswith("qemu") for p in processes_of(folder)))
                assert cleanup()[1]
            else:
                assert run.code() == 1, run.words
                assert "not converging: not done" in run.words.splitlines()[-1]
        assert group_of(here) == before
        stays.assert_stayed()
