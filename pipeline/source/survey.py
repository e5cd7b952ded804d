"""What the source tells before the first round: who comes, and what of memory and disks exists."""

from collections.abc import Callable, Mapping, Sequence

from pipeline.config.model import Config
from pipeline.extents import complement, data_extents, encode_extents
from pipeline.guests.base import GuestBlock, SourceGuest
from pipeline.source.dirty import DirtyMap
from pipeline.source.sent_tables import SentTables
from protocol import control as c
from protocol.limits import EXTENTS_A_MESSAGE
from workers.pages import Hashes


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


def survey(
    blocks: Sequence[GuestBlock],
    bases: Mapping[int, Hashes],
    dirty: DirtyMap,
    sent: SentTables,
    tell: Callable[[c.Holes], None],
) -> None:
    """Mark in `dirty` what exists, but of blocks with a base; `tell` what does not exist, and note
    it, and the bases, as `sent`."""
    for number, block in enumerate(blocks):
        if number in bases:
            continue
        extents = data_extents(block.fd, block.pages)
        dirty.mark_extents(number, extents)
        holes = complement(extents, block.pages)
        for start in range(0, len(holes), EXTENTS_A_MESSAGE):
            tell(c.Holes(number, encode_extents(holes[start : start + EXTENTS_A_MESSAGE])))
        sent.note_holes(number, holes)
    sent.note_bases(bases)
