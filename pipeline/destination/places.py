"""Files that something lands in: made here, and on record as long as nothing has arrived."""

from pathlib import Path

from pipeline.guests.memory import make_file, remove_file, was_made_at
from pipeline.leftovers.cleanup import cleared
from pipeline.records.store import SessionRecord
from protocol.errors import MigrationError


def make_place(path: Path, record: SessionRecord) -> None:
    """See that there is a file, and that one that was made here is on record."""
    with cleared(lambda earlier: any(was_made_at(one, path) for one in earlier.made_files)):
        made = make_file(path)
        if made is None:
            return
        try:
            record.add(made)
        except MigrationError:
            remove_file(made)
            raise
