"""What limits a migration, and what may be changed, in plain words. Pure."""

from collections.abc import Mapping
from typing import Any

STAGES = {
    "scan": "finding dirty pages limits: `tracker: uffd`, or more compress workers",
    "compress": "the source's cores limit: a faster codec or level, more compress workers, or raw"
    " pages where the link is fast",
    "send": "the link limits: a codec or level that packs more, or xbzrle where little changes",
    "receive": "the destination's network limits",
    "decompress": "the destination's cores limit: more decompress workers, or a codec that unpacks"
    " faster",
    "write": "the destination's one thread that writes memory limits: nothing that is set here"
    " changes that",
}
MOSTLY_WAITING = 0.5
HARDLY_BUSY = 0.25
"""On two cores that both ends have for themselves the quickstart's busiest stage is at work for
37 % of the time, by 14 % on a machine that is busy otherwise."""


def advice(result: Mapping[str, Any]) -> str:
    """For one migration, as its result has it."""
    stages = result.get("stages") or {}
    compress = stages.get("compress") or {}
    if (compress.get("blocked") or 0) > MOSTLY_WAITING:
        return STAGES["send"]
    name = str(result.get("bottleneck"))
    busy = (stages.get(name) or {}).get("busy")
    if busy is not None and busy < HARDLY_BUSY:
        return (
            f"no stage was at work for long ({name} {busy:.0%}): what else the machine does limits"
        )
    return STAGES.get(name, "nothing that was measured limits")
