"""Guests that are processes of their own, for tests of what is left of their migrations."""

import os
import signal
from contextlib import ExitStack, closing
from pathlib import Path

from pipeline.config.model import Config
from pipeline.guests import wire
from pipeline.guests.process import GuestProcess, process_at
from pipeline.guests.synthetic import SyntheticArrival, SyntheticGuest
from pipeline.records.record import StoppedGuest
from pipeline.source.departures import make_guest
from protocol.control import BlockInfo
from protocol.limits import PAGE_BYTES
from tests.pipeline.guests.helpers import copy_memory
from tests.system.migrations import Command, settings

SMALL = {"kind": "synthetic", "memory": "2MiB", "workload": {"working-set": "1MiB"}}


class Guests:
    """Guests as processes, each at the socket of its name in `folder`."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder = folder
        self._stack = stack
        self._commands: dict[str, Command] = {}

    def start(self, *names: str) -> None:
        """All at a time; one whose name begins with `i` waits to be filled."""
        for name in names:
            options = ["--socket", str(self.at(name)), *["--incoming"] * name.startswith("i")]
            command = Command(self._folder, "guest", *options, config=settings(SMALL))
            self._commands[name] = self._stack.enter_context(command)
        for name in names:
            self._commands[name].wait_for("the guest is")

    def at(self, name: str) -> Path:
        """Its socket."""
        return self._folder / name

    def end(self, name: str) -> None:
        """As a user ends it."""
        self._commands[name].process.terminate()
        assert self._commands[name].code() == 0, self._commands[name].words

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send it."""
        self._commands[name].process.send_signal(number)

    def stop(self, name: str) -> StoppedGuest:
        """As a migration does."""
        with closing(GuestProcess.attach(self.at(name))) as guest:
            guest.talk.ask(wire.Stop(), wire.Stopped)
            return StoppedGuest(guest.process, str(self.at(name)))

    def state(self, name: str) -> str:
        """Whether it runs, or why not."""
        with closing(GuestProcess.attach(self.at(name))) as guest:
            described, fd = guest.talk.describe()
            os.close(fd)
            return described.state

    def move(self, source: str, destination: str, session: str) -> None:
        """Migrate it, as both ends do."""
        guest = make_guest(config_of(self.at(source)))
        assert isinstance(guest, SyntheticGuest)
        [block] = guest.blocks
        there = SyntheticArrival.attach(self.at(destination), [BlockInfo(block.name, block.pages)])
        guest.stop()
        copy_memory(block.fd, there.blocks[0].fd, block.pages * PAGE_BYTES)
        there.load_devices(guest.save_devices())
        there.begin(session, run=True)
        guest.leave()
        guest.close()
        there.close()

    def facts(self, name: str) -> dict[str, object]:
        """What a record says of it."""
        return {"guest": process_at(self.at(name)), "socket": str(self.at(name))}


def config_of(path: Path) -> Config:
    """A migration of the guest at `path`."""
    return Config.model_validate(settings({"kind": "synthetic", "socket": str(path)}))
