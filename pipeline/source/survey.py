"""What the source tells before the first round: who comes, and what of memory and disks exists."""

from typing import TYPE_CHECKING

from pipeline.config.model import Config
from pipeline.extents import complement, data_extents, encode_extents
from pipeline.guests.base import SourceGuest
from protocol import control as c
from protocol.limits import EXTENTS_A_MESSAGE

if TYPE_CHECKING:
    from pipeline.source.engine import SourceEngine


def hello_of(config: Config, guest: SourceGuest, disks: list[c.DiskInfo]) -> c.Hello:
    """The guest that wants to come, and how its pages will travel."""
    return c.Hello(
        name=config.name,
        kind=guest.kind,
        blocks=[c.BlockInfo(block.name, block.pages) for block in guest.blocks],
        batch_pages=config.batch_pages,
        codec=config.effective_codec,
        verify=config.verify,
        connections=int(config.parameters.compress_threads),
        machine=guest.machine,
        disks=disks,
    )


def survey(engine: "SourceEngine") -> None:
    """Mark what exists, or is not in the base, for the first round; tell what does not exist."""
    for number, block in enumerate(engine.blocks):
        if number in engine.disks.bases:
            continue
        extents = data_extents(block.fd, block.pages)
        engine.dirty.mark_extents(number, extents)
        holes = complement(extents, block.pages)
        for start in range(0, len(holes), EXTENTS_A_MESSAGE):
            piece = encode_extents(holes[start : start + EXTENTS_A_MESSAGE])
            engine.link.send(c.Holes(block=number, extents=piece))
        engine.sent.note_holes(number, holes)
    engine.sent.note_bases(engine.disks.bases)
    engine.scan_hashes(engine.dirty.mark, only=engine.disks.bases)
