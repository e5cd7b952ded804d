"""Two commands that are driven over QMP."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.pipeline.guests.helpers import wait_until
from tests.pipeline.monitor.talking import Client, listens
from tests.system.migrations import END_S, SYNTHETIC, Command, settings

BIG = SYNTHETIC | {"memory": "64MiB"}


@dataclass
class Ends:
    """Two commands that are driven: a source with a guest, a destination that waits for a URI."""

    here: Command
    there: Command
    folder: Path

    @property
    def source(self) -> Path:
        """The source's QMP socket."""
        return self.folder / "source.qmp"

    @property
    def destination(self) -> Path:
        """The destination's QMP socket."""
        return self.folder / "destination.qmp"

    @property
    def uri(self) -> str:
        """Where the destination may wait."""
        return f"unix:{self.folder}/control"


@contextmanager
def driven(folder: Path) -> Iterator[Ends]:
    """`migrate --wait` and `incoming --uri defer`, both listening."""
    config = settings(BIG)
    source, destination = folder / "source.qmp", folder / "destination.qmp"
    with (
        Command(folder, "migrate", "--qmp", str(source), "--wait", config=config) as here,
        Command(folder, "incoming", "--uri", "defer", "--qmp", str(destination)) as there,
    ):
        for path in (source, destination):
            wait_until(partial(listens, path), END_S)
        yield Ends(here, there, folder)
        for command, path in ((here, source), (there, destination)):
            if command.process.poll() is None and listens(path):
                with Client(path) as last:
                    last.say(b'{"execute": "quit"}\n')
                    assert last.has_ended()
            command.code()
