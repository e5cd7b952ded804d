"""`pageferry host`: a machine of a cluster, for batches."""

import asyncio
import os
import tempfile
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.config.environment import check_packages
from pipeline.shell.folders import own_temporary_folder
from pipeline.signals import SIGNALS
from protocol.errors import ConfigError

if TYPE_CHECKING:
    from distributed import Worker

KEYS = "distributed.comm.tls.worker.cert"
QUIET = {
    "distributed.worker.http.routes": [],  # its pages are for everybody
    "distributed.worker.profile.enabled": False,  # looks at all threads, 100 times a second
}
END_S = 3.0
"""For a host that is told to end; its ends of migrations are then told, too."""


def host(
    name: Annotated[str, typer.Argument(metavar="HOST", help="As plans call it.")],
    scheduler: Annotated[
        str, typer.Option("--scheduler", metavar="ADDRESS", help="Dask's: tls://HOST:PORT.")
    ],
) -> int:
    """Be a host of a cluster: a Dask worker, with everything set.

    Until SIGINT or SIGTERM. Keys for TLS are Dask's to find, by its configuration.

    \b
    pageferry host rack7-a --scheduler tls://192.0.2.1:8786
    """
    check_packages("host", "distributed")
    try:
        with own_temporary_folder():
            asyncio.run(_serve(name, scheduler))
    except (OSError, RuntimeError, TimeoutError, ValueError) as error:
        raise ConfigError(f"--scheduler: {scheduler}: {error}") from None
    return 0


def _worker(name: str, scheduler: str) -> "Worker":
    import dask
    from distributed import Worker
    from distributed.comm.addressing import get_local_address_for

    from pipeline.cluster.dask import ENDS_A_HOST, NO_KEYS, resource

    if scheduler.startswith("tls:") and not dask.config.get(KEYS, None):
        raise ValueError(NO_KEYS)
    dask.config.set({**QUIET, "temporary-directory": tempfile.gettempdir()})
    return Worker(
        scheduler,
        name=name,
        nthreads=ENDS_A_HOST,
        resources={resource(name): ENDS_A_HOST},
        memory_limit=0,
        host=get_local_address_for(scheduler),  # else it listens everywhere
        dashboard=False,
        dashboard_address="127.0.0.1:0",  # one without pages it opens all the same
    )


async def _serve(name: str, scheduler: str) -> None:
    from pipeline.cluster.folder import forget_old

    forget_old()
    worker = _worker(name, scheduler)
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert task is not None

    def end() -> None:
        loop.call_later(END_S, os._exit, 1)  # whatever its threads, or a scheduler, are about
        task.cancel()

    for number in SIGNALS:
        loop.add_signal_handler(number, end)
    with suppress(asyncio.CancelledError):
        async with worker:
            await worker.finished()
