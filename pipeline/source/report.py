"""Makes progress reports and the result of what the source has counted."""

from dataclasses import asdict

from pipeline.config.model import Config
from pipeline.progress import Counts, Progress
from pipeline.result import (
    Compression,
    Disk,
    DowntimeParts,
    Ram,
    Result,
    RoundResult,
    Shares,
    Stages,
    XbzrleCache,
    verified,
)
from pipeline.source.coordinator import Coordinator
from pipeline.source.downtime import DowntimeClock
from pipeline.source.engine import SourceEngine
from pipeline.source.statistics import Busy, DeltaCounts, RoundCount, SourceStatistics
from pipeline.timeline import Timeline
from protocol.limits import PAGE_BYTES
from protocol.status import Status, StatusMachine


def progress_of(coordinator: Coordinator, status: StatusMachine, timeline: Timeline) -> Progress:
    """Where the migration stands now."""
    engine = coordinator.engine
    statistics = engine.statistics
    elapsed_s = timeline.elapsed_ms() / 1e3
    done_bytes = statistics.all_applied_pages * PAGE_BYTES
    remaining = engine.pending_bytes
    whole = done_bytes + remaining
    windows, rounds = engine.pump.windows, coordinator.pacing.rounds
    return Progress(
        status=status.status,
        elapsed_s=elapsed_s,
        round_no=len(statistics.rounds),
        percent=100.0 * done_bytes / whole if whole else 0.0,
        transferred=statistics.all_wire_bytes,
        remaining=remaining,
        disk_remaining=engine.disk_pending_bytes if engine.disks.blocks else None,
        guest_rate=windows.bandwidth * 1e3 or None,
        wire_rate=windows.mbps * 1e6 / 8 if windows.mbps >= 0 else None,
        dirty_pages_rate=statistics.dirty_pages_rate or None,
        ratio=statistics.ratio,
        expected_downtime_ms=rounds.expected_downtime_ms if windows.bandwidth else None,
        throttle=coordinator.custody.slowing.percent or None,
        counts=_counts(coordinator),
    )


def _counts(coordinator: Coordinator) -> Counts:
    engine = coordinator.engine
    statistics = engine.statistics
    return Counts(
        memory_bytes=statistics.memory_pages * PAGE_BYTES,
        pages={
            "zero": statistics.zero_pages,
            "normal": statistics.data_pages,
            "delta": statistics.deltas.pages,
            "skipped": statistics.skipped_pages,
        },
        redone=engine.dispatcher.redone,
        workers={"compress": len(engine.recovery.staff.working)},
        busy_s={name: ns / 1e9 for name, ns in asdict(statistics.busy).items()},
        downtime_ms=coordinator.clock.total_ms,
    )


def result_of(
    coordinator: Coordinator, config: Config, status: StatusMachine, timeline: Timeline
) -> Result:
    """What happened, once it is over."""
    engine = coordinator.engine
    total_ms = timeline.elapsed_ms()
    setup_ms = timeline.setup_ms()
    completed = status.status is Status.COMPLETED
    moving_ms = total_ms - (setup_ms or 0.0)
    rounds, lanes = engine.statistics.rounds, engine.statistics.lanes
    workers = max((count.workers for count in rounds), default=1)
    stages = _stages(engine.statistics.busy, moving_ms, workers, lanes)
    return Result(
        status=status.status,
        total_time=round(total_ms),
        downtime=_rounded(coordinator.clock.total_ms),
        setup_time=_rounded(setup_ms),
        expected_downtime=round(coordinator.pacing.rounds.expected_downtime_ms),
        ram=_ram(engine.statistics, engine.pending_bytes - engine.disk_pending_bytes, total_ms),
        disk=_disk(engine),
        compression=_compression(engine.statistics, config),
        xbzrle_cache=_xbzrle(engine.statistics.deltas, engine.dispatcher.cache_slots),
        cpu_throttle_percentage=coordinator.custody.slowing.most or None,
        cpu_throttle_by=coordinator.custody.slowing.by,
        name=config.name,
        session=engine.session_id.hex(),
        verified=verified(config.verify) if completed else False,
        guest_alive=coordinator.custody.alive,
        tracker=engine.tracking.name,
        tracker_reason=engine.tracking.reason,
        rounds=[_round(count, lanes) for count in rounds],
        downtime_parts=_parts(coordinator.clock),
        stages=stages,
        bottleneck=_bottleneck(stages),
        redone=engine.dispatcher.redone,
        decisions=coordinator.pacing.convergence.decisions,
        guest_dirty_rate=coordinator.guest_dirty_rate,
        error_desc=coordinator.error,
    )


def _rounded(value: float | None) -> int | None:
    return None if value is None else round(value)


def _ram(statistics: SourceStatistics, pending_bytes: int, total_ms: float) -> Ram:
    seconds = max(total_ms, 1.0) / 1e3
    return Ram(
        transferred=statistics.wire_bytes,
        remaining=pending_bytes,
        total=statistics.memory_pages * PAGE_BYTES,
        duplicate=statistics.zero_pages,
        skipped=statistics.skipped_pages,
        normal=statistics.data_pages,
        normal_bytes=statistics.data_pages * PAGE_BYTES,
        dirty_pages_rate=round(statistics.dirty_pages_rate),
        mbps=statistics.all_wire_bytes * 8 / seconds / 1e6,
        dirty_sync_count=statistics.dirty_sync_count,
        pages_per_second=round(statistics.applied_pages / seconds),
    )


def _disk(engine: SourceEngine) -> Disk | None:
    if not engine.disks.blocks:
        return None
    return Disk(
        transferred=engine.statistics.disks.wire_bytes,
        remaining=engine.disk_pending_bytes,
        total=engine.disks.pages * PAGE_BYTES,
    )


def _compression(statistics: SourceStatistics, config: Config) -> Compression | None:
    if config.effective_codec == "none":
        return None
    return Compression(
        pages=statistics.compressed_pages,
        compressed_size=statistics.compressed_bytes,
        compression_rate=statistics.uncompressed_bytes / max(statistics.compressed_bytes, 1),
    )


def _xbzrle(deltas: DeltaCounts, slots: int) -> XbzrleCache | None:
    if not slots:
        return None
    return XbzrleCache(
        cache_size=slots * PAGE_BYTES,
        bytes=deltas.bytes,
        pages=deltas.pages,
        cache_miss=deltas.missed,
        cache_miss_rate=deltas.miss_rate,
        encoding_rate=deltas.encoding_rate,
        overflow=deltas.overflow,
    )


def _round(count: RoundCount, lanes: int) -> RoundResult:
    """One that was not ended has no shares and no rates."""
    ms = max(0.0, (count.ended_ns - count.began_ns) / 1e6)
    stages = _stages(count.busy, ms, count.workers, lanes) if ms else None
    return RoundResult(
        round_no=count.round_no,
        pages=count.pages,
        zero_pages=count.zero_pages,
        bytes=count.pages * PAGE_BYTES,
        wire_bytes=count.wire_bytes,
        ms=round(ms),
        dirty_pages_rate=round(count.dirty_pages_rate),
        memory_rate=round(count.pages * PAGE_BYTES / ms * 1e3) if ms else None,
        wire_rate=round(count.wire_bytes / ms * 1e3) if ms else None,
        stages=stages,
        bottleneck=_bottleneck(stages) if stages else None,
    )


def _parts(clock: DowntimeClock) -> DowntimeParts:
    return DowntimeParts(**{name.replace("-", "_"): round(ms) for name, ms in clock.parts.items()})


def _stages(busy: Busy, ms: float, workers: int, lanes: int) -> Stages:
    """Shares of so many ms; a stage of several workers has that much more of them. What a
    compress worker waits for the wire, it is blocked."""
    compress, send = (ns / (ms * 1e6 * workers) for ns in (busy.compress, busy.send))
    return Stages(
        scan=Shares(busy=busy.scan / (ms * 1e6 * workers)),
        compress=Shares(busy=compress, blocked=send, starved=max(0.0, 1 - compress - send)),
        send=Shares(busy=send),
        decompress=_fed(busy.decompress / (ms * 1e6 * lanes)),
        write=_fed(busy.write / (ms * 1e6)),
    )


def _fed(busy: float) -> Shares:
    """Of a stage that waits for nothing but its input."""
    return Shares(busy=busy, starved=max(0.0, 1 - busy), blocked=0.0)


def _bottleneck(stages: Stages) -> str | None:
    shares = {name: getattr(stages, name) for name in Stages.__struct_fields__}
    busy = {name: share.busy for name, share in shares.items() if share is not None}
    return max(busy, key=lambda name: busy[name], default=None)
