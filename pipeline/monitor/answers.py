"""What `query-migrate` answers, in QEMU's names and units."""

from typing import Any

from pipeline.destination.incoming import Incoming
from pipeline.source.outgoing import Outgoing
from protocol.status import Status

Answer = dict[str, Any]


def migration_info(outgoing: Outgoing) -> Answer:
    """How the migration from here stands."""
    status = outgoing.status.status
    if status is Status.NONE:
        return {}
    answer: Answer = {"status": status}
    if status is Status.SETUP:
        return answer
    result = outgoing.result()
    if outgoing.status.has_failed:
        return answer | {"error-desc": result.error_desc}
    answer |= {"total-time": result.total_time, "setup-time": result.setup_time}
    if status is Status.COMPLETED:
        answer |= {"downtime": result.downtime}
    else:
        answer |= {"expected-downtime": result.expected_downtime}
        coordinator = outgoing.coordinator
        if coordinator is not None and (percent := coordinator.custody.slowing.percent):
            answer |= {"cpu-throttle-percentage": percent}
    if result.xbzrle_cache is not None:
        answer |= {"xbzrle-cache": result.xbzrle_cache}
    if result.disk is not None:
        answer |= {"disk": result.disk}
    return answer | {"ram": result.ram, "compression": result.compression}


def arrival_info(incoming: Incoming) -> Answer:
    """How the migration to here stands; where it is waited for, as long as nobody has come."""
    status, receiver = incoming.status.status, incoming.receiver
    if receiver is None:
        return {}
    answer: Answer = {"status": status}
    if status is Status.SETUP and not incoming.is_stream:
        answer["socket-address"] = [_address(receiver.engine.link.endpoint)]
    if incoming.status.has_failed:
        answer["error-desc"] = receiver.error
    return answer


def status_info(run_state: str) -> Answer:
    """What a guest does."""
    return {"status": run_state, "running": run_state == "running", "singlestep": False}


def _address(endpoint: str) -> Answer:
    """An endpoint as QEMU's SocketAddress."""
    scheme, _, place = endpoint.partition("://")
    if scheme == "ipc":
        return {"type": "unix", "path": place}
    host, _, port = place.rpartition(":")
    return {"type": "inet", "host": host.strip("[]"), "port": port}
