"""A command that starts workers, says which, and waits to be killed.

One worker is idle, one waits for the wire limit, one for a destination that is not there.
"""

import os
import sys
import time
from pathlib import Path

import psutil
import zmq

from protocol.limits import PAGE_BYTES
from tests.workers import bodies
from tests.workers.driving import Context, hear, own
from workers.compress import CompressSettings, compress_worker
from workers.link import PoolAddress
from workers.live import LiveSettings
from workers.memory import PassedFd, shared_memory
from workers.messages import Connect, SendJob, Sent
from workers.pool import Pool

JOBS = 10
SLOW = 10
"""Bytes/s: the second frame has to wait."""


def main() -> None:
    """Start the workers, say their pids, and sleep."""
    context: Context = zmq.Context()
    idle = Pool(context, "idle")
    idle.start(1, bodies.obedient, own, lambda: None)
    there: zmq.Socket[bytes] = context.socket(zmq.ROUTER)
    there.bind("tcp://127.0.0.1:*")
    nowhere = _compressing(context, f"ipc://{Path(os.environ['TMPDIR']) / 'nowhere'}", 0)
    limited = _compressing(context, there.getsockopt_string(zmq.LAST_ENDPOINT), SLOW)
    hear(limited, Sent)
    pools = [idle, nowhere, limited]
    servers = psutil.Process().children()
    workers = [worker.pid for server in servers for worker in server.children()]
    sys.stdout.write(" ".join(map(str, workers)) + "\n")
    sys.stdout.flush()
    time.sleep(1000 * len(pools))


def _compressing(context: Context, endpoint: str, rate: int) -> Pool:
    memory, live_fd = shared_memory("orphan", PAGE_BYTES), LiveSettings.memory()
    LiveSettings(live_fd).rate = rate

    def settings(address: PoolAddress) -> CompressSettings:
        return CompressSettings(
            address=address,
            session=bytes(16),
            batch_pages=1,
            content_digest=False,
            block_pages=(1,),
            memory=(PassedFd(memory),),
            hashes=None,
            live=PassedFd(live_fd),
        )

    pool = Pool(context, "compress")
    pool.start(1, compress_worker, settings, lambda: None)
    pool.send(0, Connect([endpoint]))
    for seq in range(1, JOBS + 1):
        pool.send(0, SendJob(seq, 0, 1, 0, 0, False, "none", 0, bytes(4)))
    return pool


if __name__ == "__main__":
    main()
