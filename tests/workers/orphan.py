"""A command that starts workers, says which, and waits to be killed.

Its workers are idle, or compress workers that wait for the wire limit, or for a
destination that is not there.
"""

import os
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import zmq

from protocol.limits import PAGE_BYTES
from tests.workers import bodies
from tests.workers.driving import own
from workers.compress import CompressSettings, compress_worker
from workers.link import PoolAddress
from workers.live import LiveSettings
from workers.memory import PassedFd, shared_memory
from workers.messages import Connect, SendJob
from workers.pool import Pool

JOBS = 10
"""More than fit into the queues of a connection that leads nowhere."""


def main(state: str) -> None:
    """Start two workers, say their pids, and sleep."""
    pool = Pool(zmq.Context(), "orphan")
    if state == "idle":
        pool.start(2, bodies.obedient, own, lambda: None)
    else:
        _start_compressing(pool, state)
    workers = psutil.Process(_fork_server()).children()
    sys.stdout.write(" ".join(str(worker.pid) for worker in workers) + "\n")
    sys.stdout.flush()
    time.sleep(1000)


def _fork_server() -> int:
    (server,) = (p for p in psutil.Process().children() if "forkserver" in " ".join(p.cmdline()))
    return server.pid


def _start_compressing(pool: Pool, state: str) -> None:
    memory = shared_memory("orphan", PAGE_BYTES)
    live_fd = LiveSettings.memory()
    live = LiveSettings(live_fd)
    live.rate = 10 if state == "limited" else 0

    def settings(address: PoolAddress) -> CompressSettings:
        return CompressSettings(
            address=address,
            session=bytes(16),
            codec="none",
            batch_pages=1,
            content_digest=False,
            block_pages=(1,),
            memory=(PassedFd(memory),),
            hashes=None,
            live=PassedFd(live_fd),
        )

    pool.start(2, compress_worker, settings, lambda: None)
    nowhere = Path(os.environ["TMPDIR"]) / "nowhere"
    pool.broadcast(Connect([f"ipc://{nowhere}"]))
    pages = np.zeros(1, np.uint32).tobytes()
    for seq in range(1, JOBS + 1):
        pool.broadcast(SendJob(seq, 0, 1, 0, 0, False, pages))


if __name__ == "__main__":
    main(sys.argv[1])
