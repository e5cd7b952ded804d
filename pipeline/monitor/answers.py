"""What `query-migrate` answers, in QEMU's names and units."""

from typing import Any

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
    if status in (Status.FAILED, Status.CANCELLED):
        return answer | {"error-desc": result.error_desc}
    answer |= {"total-time": result.total_time, "setup-time": result.setup_time}
    if status is Status.COMPLETED:
        answer |= {"downtime": result.downtime}
    else:
        answer |= {"expected-downtime": result.expected_downtime}
    return answer | {"ram": result.ram, "compression": result.compression}
