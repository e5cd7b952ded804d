"""One case of the matrix: a victim that is killed, or hangs, at a point of a real migration
between two guests that live on their own; and where the guest is in the end.
"""

import os
import select
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGCONT, SIGKILL, SIGSTOP, Signals
from typing import Any

import psutil

from pipeline.guests import wire
from pipeline.guests.conversation import close_all
from pipeline.guests.process import GuestProcess
from pipeline.records.processes import maybe_process
from pipeline.result import Result
from tests.faults.staged import POINTS
from tests.leaks import open_records, processes_of
from tests.pipeline.guests.helpers import wait_until
from tests.system.migrations import SYNTHETIC, Command, settings

REACH_S = 30.0
END_S = 60.0
SLOW = {"max-bandwidth": "8MiB", "downtime-limit": 60}
COMMIT_S = 5


@dataclass
class Case:
    """The processes of one case, in a folder and with records of their own."""

    folder: Path
    victim: str
    point: str
    signal: Signals
    stack: ExitStack = field(default_factory=ExitStack)

    def __post_init__(self) -> None:
        self.folder.mkdir()
        self.env = {"XDG_STATE_HOME": str(self.folder / "state")}

    def command(self, *arguments: str, config: dict[str, Any] | None = None) -> Command:
        """A command of this case."""
        command = Command(self.folder, *arguments, config=config, env=self.env)
        return self.stack.enter_context(command)

    def guest(self, name: str, *options: str) -> Command:
        """A guest that lives on its own, at the socket `name`."""
        config = settings(SYNTHETIC)
        path = self.folder / name
        guest = self.command("guest", "--socket", str(path), *options, config=config)
        wait_until(path.is_socket, REACH_S)
        return guest

    @contextmanager
    def staged(self, *arguments: str, config: dict[str, Any]) -> Iterator["Staged"]:
        """A command that stands still at the point, where it is the one that comes there."""
        reached, here = os.pipe()
        go, there = os.pipe()
        launch = ("-m", "tests.faults.staged", self.point, str(here), str(go))
        plain = POINTS[self.point].end != {"migrate": "source"}.get(arguments[0], "destination")
        with Command(
            self.folder,
            *arguments,
            config=config,
            launch=("-m", "pipeline") if plain else launch,
            env=self.env,
            pass_fds=() if plain else (here, go),
        ) as command:
            close_all((here, go))
            try:
                yield Staged(command, reached, there)
            finally:
                close_all((reached, there))


@dataclass
class Staged:
    """A command, and the pipes by which it says that it has come to the point."""

    command: Command
    reached: int
    go: int

    def wait(self) -> None:
        """Wait until it is there."""
        assert select.select([self.reached], [], [], REACH_S)[0], self.command.words
        assert os.read(self.reached, 1), self.command.words

    def go_on(self) -> None:
        """Let it go on; one that is dead does not."""
        with suppress(BrokenPipeError):
            os.write(self.go, b".")


def ending(folder: Path, victim: str, point: str, signal: Signals) -> str:
    """Where the guest runs in the end, and what somebody had to do for that.

    AssertionError for wrong memory, two guests, or anything that is left.
    """
    case = Case(folder, victim, point, signal)
    with case.stack:
        guests = {
            "source guest": case.guest("g"),
            "destination guest": case.guest("i", "--incoming"),
        }
        config = settings(
            {"kind": "synthetic", "socket": str(folder / "g")},
            parameters=SLOW,
            commit_timeout=COMMIT_S,
        )
        config["destination"] = {"socket": str(folder / "i")}
        uri = f"unix:{folder}/c"
        there = case.stack.enter_context(case.staged("incoming", "--uri", uri, config=config))
        wait_until((folder / "c").is_socket, REACH_S)
        here = case.stack.enter_context(case.staged("migrate", "--uri", uri, config=config))
        (here if POINTS[point].end == "source" else there).wait()
        strike(case, here.command, there.command, guests)
        here.go_on()
        there.go_on()
        results = await_ends(case, here.command, there.command, guests)
        found = outcome(case, results, guests)
        tidy_up(case, guests)
    left = [*map(str, processes_of(folder)), *open_records(folder / "state")]
    shutil.rmtree(folder / "state")
    for name in ("g", "i"):
        (folder / name).unlink(missing_ok=True)  # of a guest that was killed
    left += [path.name for path in folder.iterdir()]
    assert not left, left
    folder.rmdir()
    return found


def strike(case: Case, here: Command, there: Command, guests: dict[str, Command]) -> None:
    """Send the signal to the victim."""
    ends = {"coordinator": here, "receiver": there, **guests}
    if case.victim in ends:
        ends[case.victim].process.send_signal(case.signal)
        if case.signal is SIGKILL:
            ends[case.victim].code(END_S)
        return
    source = case.victim in ("compress worker", "fork server")
    server, workers = forked(here if source else there)
    victim = server if case.victim == "fork server" else workers[0]
    victim.send_signal(case.signal)
    if case.signal is SIGKILL:
        wait_until(lambda: maybe_process(victim.pid) is None)


def forked(command: Command) -> tuple[psutil.Process, list[psutil.Process]]:
    """The fork server of a command, and the workers that it has started."""
    for child in psutil.Process(command.process.pid).children():
        if "forkserver" in " ".join(child.cmdline()):
            return child, child.children()
    raise AssertionError("no fork server")


def await_ends(
    case: Case, here: Command, there: Command, guests: dict[str, Command]
) -> list[Result | None]:
    """The results of both ends; a victim that hangs is let go on when the others have ended."""
    hangs = case.signal is SIGSTOP
    by_name = {"coordinator": here, "receiver": there, **guests}
    for command in (here, there):
        if not (hangs and by_name.get(case.victim) is command):
            command.code(END_S)
    if hangs and case.victim in by_name:
        by_name[case.victim].process.send_signal(SIGCONT)
    return [maybe_result(command) for command in (here, there)]


def maybe_result(command: Command) -> Result | None:
    """How it ended; None where it could not say."""
    return None if command.code(END_S) < 0 else command.result()


def state(case: Case, name: str, guest: Command) -> str:
    """Whether the guest at socket `name` runs, with its memory proved right, or why not."""
    if guest.process.poll() is not None:
        return "dead"
    machine = GuestProcess.attach(case.folder / name)
    try:
        described, fd = machine.talk.describe()
        close_all([fd])
        if described.state == "running":
            assert machine.talk.ask(wire.Check(), wire.Checked, END_S).bad is None
        return described.state
    finally:
        machine.close()


def where(case: Case, guests: dict[str, Command]) -> str:
    """Where the guest runs."""
    here = state(case, "g", guests["source guest"])
    there = state(case, "i", guests["destination guest"])
    assert (here, there) != ("running", "running"), "two guests run"
    return "here" if here == "running" else "there" if there == "running" else "nowhere"


def outcome(case: Case, results: list[Result | None], guests: dict[str, Command]) -> str:
    """Where the guest runs, after cleanup, or resolve, where it does not by itself."""
    first = where(case, guests)
    clean = case.command("cleanup").code(END_S) == 0
    agree(results, first, known=clean)
    after = where(case, guests)
    if not clean:
        return f"{resolved(case, guests)}, resolve"
    return after if first == after else f"{after}, cleanup"


def agree(results: list[Result | None], place: str, *, known: bool) -> None:
    """No result says that the guest is where it is not, or that nobody knows what is `known`."""
    for result in results:
        assert not (known and result and result.guest_alive == "unknown"), result
        if result is not None and result.guest_alive in ("source", "destination"):
            told = {"source": "here", "destination": "there"}[result.guest_alive]
            assert place in (told, "nowhere"), (result, place)


def resolved(case: Case, guests: dict[str, Command]) -> str:
    """Where the guest runs after resolve at both ends."""
    session = next(case.folder.rglob("*-source.jsonl")).name.partition("-")[0]
    close = case.command("resolve", session)
    assert close.code(END_S) == 0, close.words
    record = case.folder / "record.json"
    record.write_text(close.output)
    settle = case.command("resolve", session, "--peer-record", str(record))
    assert settle.code(END_S) == 0, settle.words
    record.unlink()
    return where(case, guests)


def tidy_up(case: Case, guests: dict[str, Command]) -> None:
    """A second cleanup finds nothing to do; the guests end when they are told to."""
    again = case.command("cleanup")
    assert (again.code(END_S), again.output) == (0, ""), again.output
    for guest in guests.values():
        if guest.process.poll() is None:
            guest.process.terminate()
            assert guest.code(END_S) == 0, guest.words
