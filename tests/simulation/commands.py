"""The two commands, each a process that runs the real driver of its end."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Literal, cast

from pipeline.config.model import Config
from pipeline.destination.receiver import Receiver
from pipeline.guests.process import GuestProcess
from pipeline.guests.synthetic import SyntheticArrival, SyntheticGuest
from pipeline.records.store import SessionRecord
from pipeline.source.coordinator import Coordinator
from pipeline.source.tracking import Tracking
from pipeline.uffd import WrittenScan
from protocol.control import Hello
from protocol.status import INCOMING_TRANSITIONS, StatusMachine
from protocol.uri import parse_uri
from tests.simulation.clock import Process
from tests.simulation.guest import Machine
from tests.simulation.world import World

URI = parse_uri("tcp:10.0.0.2:4444")


@dataclass(frozen=True)
class Settings:
    """What the two commands are started with."""

    compress_threads: int
    decompress_threads: int
    tracker: Literal["uffd", "hash"]
    verify: Literal["full", "frames"]
    commit_timeout: float
    downtime_limit: int
    guests_live_on: bool

    @classmethod
    def drawn(cls, dice: Random) -> "Settings":
        """Any that make sense."""
        tracker: Literal["uffd", "hash"] = dice.choice(("uffd", "hash"))
        return cls(
            compress_threads=dice.choice((1, 2, 2)),
            decompress_threads=dice.choice((1, 2, 2)),
            tracker=tracker,
            verify=dice.choice(("full", "full", "frames")),
            commit_timeout=dice.choice((4.0, 8.0)),
            downtime_limit=dice.choice((60, 150, 300)),
            guests_live_on=dice.random() < 0.8,
        )

    def config(self) -> Config:
        """As a configuration file says it."""
        return _config(self)


@lru_cache(maxsize=1024)
def _config(settings: Settings) -> Config:
    return Config.model_validate(
        {
            "name": "simulated",
            "guest": {"kind": "synthetic"},
            "codec": "none",
            "batch-pages": 2,
            "tracker": settings.tracker,
            "verify": settings.verify,
            "commit-timeout": settings.commit_timeout,
            "parameters": {
                "compress-threads": settings.compress_threads,
                "decompress-threads": settings.decompress_threads,
                "downtime-limit": settings.downtime_limit,
            },
        }
    )


class SourceCommand:
    """`pageferry migrate`, attached to the source's guest."""

    def __init__(self, world: World, settings: Settings) -> None:
        self._world = world
        self._settings = settings
        self.status = StatusMachine()
        self.coordinator: Coordinator | None = None
        self.process: Process = world.processes.start("source command", self._run)
        if not settings.guests_live_on:
            self.process.at_end.append(self._end_guest)

    def _run(self) -> None:
        world, live_on = self._world, self._settings.guests_live_on
        machine = cast(GuestProcess, Machine(world.processes, world.source, ours=False))
        guest = SyntheticGuest(machine, Path("/source") if live_on else None)
        scans = {0: cast(WrittenScan, world.source)} if self._settings.tracker == "uffd" else {}
        world.source.scan()
        tracking = Tracking(self._settings.tracker, "drawn", scans)
        config = self._settings.config()
        self.coordinator = Coordinator(
            config, guest, tracking, self.status, URI, lambda now_ns: None
        )
        self.coordinator.migrate()

    def _end_guest(self) -> None:
        """A guest that was started for this migration ends with us."""
        self._world.clock.after(10**6, self._world.source.process.kill)

    @property
    def is_over(self) -> bool:
        """Whether it has come to an end."""
        return self.process.ended


class DestinationCommand:
    """`pageferry incoming`, attached to the guest that waits at the destination."""

    def __init__(self, world: World, settings: Settings) -> None:
        self._world = world
        self._settings = settings
        self.status = StatusMachine(INCOMING_TRANSITIONS)
        self.receiver: Receiver | None = None
        self.stays = False
        self.process: Process = world.processes.start("destination command", self._run)
        if not settings.guests_live_on:
            self.process.at_end.append(self._end_guest)

    def _run(self) -> None:
        config = self._settings.config()
        self.receiver = Receiver(
            URI,
            lambda: config,
            self._make_guest,
            self.status,
        )
        self.receiver.receive()
        if self.receiver.custody.runs_here and not self._settings.guests_live_on:
            self.stays = True
            self.process.park(None)

    def _make_guest(self, hello: Hello, record: SessionRecord) -> SyntheticArrival:
        live_on = self._settings.guests_live_on
        made = Machine(self._world.processes, self._world.destination, ours=not live_on)
        guest = SyntheticArrival(cast(GuestProcess, made), hello.blocks)
        record.name_guest(guest.process, "/destination" if live_on else None)
        return guest

    def _end_guest(self) -> None:
        self._world.clock.after(10**6, self._world.destination.process.kill)

    def give_up(self) -> None:
        """Nobody has come, and nobody will."""
        if self.receiver is not None and self.receiver.engine.pump.hello is None:
            self.receiver.cancel.set()

    @property
    def is_over(self) -> bool:
        """Whether it has come to an end, or keeps a guest that it would end with."""
        return self.process.ended or self.stays
