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


def advice(result: Mapping[str, Any]) -> str:
    """For one migration, as its result has it."""
    stages = result.get("stages") or {}
    compress = stages.get("compress") or {}
    if (compress.get("blocked") or 0) > MOSTLY_WAITING:
        return STAGES["send"]
    return STAGES.get(str(result.get("bottleneck")), "nothing that was measured limits")
