"""Makes progress reports and the result of what has come to the destination."""

from pipeline.destination.intake import Intake
from pipeline.destination.receiver import Receiver
from pipeline.progress import Counts, Progress
from pipeline.result import GuestAlive, Ram, Result, verified
from pipeline.timeline import Timeline
from protocol.limits import PAGE_BYTES
from protocol.status import Status, StatusMachine


def progress_of(receiver: Receiver, status: StatusMachine, timeline: Timeline) -> Progress:
    """What has arrived; how much is still to come only the source knows."""
    elapsed_s, intake = timeline.elapsed_ms() / 1e3, receiver.engine.intake
    if intake is None:
        return Progress(status.status, elapsed_s)
    memory = intake.reassembly
    received = memory.landed_pages * PAGE_BYTES
    counts = _counts(receiver, intake)
    return Progress(status.status, elapsed_s, memory.round_no, received=received, counts=counts)


def _counts(receiver: Receiver, intake: Intake) -> Counts:
    applied = intake.applied()
    busy_s = {"decompress": applied.decompress_ns / 1e9, "write": applied.write_ns / 1e9}
    workers = {"decompress": len(intake.pool.workers)}
    return Counts(_memory_bytes(receiver), workers=workers, busy_s=busy_s)


def _memory_bytes(receiver: Receiver) -> int | None:
    hello = receiver.engine.pump.hello
    return sum(block.pages for block in hello.blocks) * PAGE_BYTES if hello else None


def _guest_alive(receiver: Receiver, *, completed: bool) -> GuestAlive | None:
    """Where the guest runs, as far as this end knows; nothing runs in a file."""
    if completed:
        hello = receiver.engine.pump.hello
        return None if hello is None or hello.kind == "file" else "destination"
    return "unknown" if receiver.custody.begun else "source"


def result_of(receiver: Receiver, status: StatusMachine, timeline: Timeline) -> Result:
    """What happened, once it is over."""
    engine = receiver.engine
    hello = engine.pump.hello
    completed = status.status is Status.COMPLETED
    total = _memory_bytes(receiver)
    return Result(
        status=status.status,
        total_time=round(timeline.elapsed_ms()),
        ram=None if total is None else Ram(total=total),
        name=hello.name if hello else None,
        session=engine.link.session_id.hex() or None,
        verified=verified(hello.verify) if hello and completed else False,
        guest_alive=_guest_alive(receiver, completed=completed),
        error_desc=receiver.error,
    )
