"""A compress worker that does nothing: each batch it is given it has sent at once."""

from dataclasses import dataclass

from workers.link import PoolAddress, PoolLink, work
from workers.messages import SendJob, Sent, Stop, Up


@dataclass(frozen=True)
class NullSettings:
    """Where its pool is."""

    address: PoolAddress


def null_worker(settings: NullSettings) -> None:
    """The body of its process."""
    work(settings.address, lambda _, link: answer(link))


def answer(link: PoolLink) -> None:
    """Say what a real one would, until the pool says stop."""
    link.send(Up(""))
    while True:
        link.wait_for_message()
        match link.maybe_receive():
            case SendJob() as job:
                pages = len(job.pages) // 4
                link.send(Sent(job.seq, job.attempt, 0, pages, 0, 0, False, 0, 0, 0))
            case Stop():
                return
            case _:
                pass
