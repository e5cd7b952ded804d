"""One end of an attempt, on its host: begun once, waited for by whoever asks, and put right.

Called by Dask in a thread of the host's process. Each function may be called again at any time, by
a scheduler that lost an answer or by a conductor that lost its memory: it then finds what is there.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import msgspec
from msgspec import Struct

from pipeline.cluster.folder import EndFolder, new_lines
from pipeline.cluster.launching import LOOK_S, end, reap, start_with_us
from pipeline.cluster.waiting import has_come, last_line, start_what_waits
from pipeline.leftovers.cleanup import cleanup
from pipeline.result import Result
from protocol.errors import MigrationError
from protocol.session import Role

HOOK_S = 60.0
Tell = Callable[[dict[str, Any]], None]


class Order(Struct, frozen=True):
    """What an end is to be: `arguments` of the command, its configuration; at a destination the
    commands before it (`hook`, `start`), and the socket that tells when what waits is there."""

    token: str
    role: Role
    arguments: tuple[str, ...]
    config: dict[str, Any]
    hook: tuple[str, ...] | None = None
    start: tuple[str, ...] | None = None
    socket: str | None = None
    start_s: float = 60
    environment: tuple[tuple[str, str], ...] = ()


class Ended(Struct, frozen=True):
    """How an end ended: `begun` is False where it never did, nor will; its result, if it left one;
    its last words."""

    begun: bool
    result: Result | None = None
    words: str = ""


class Look(Struct, frozen=True):
    """Of an end that has begun: where it listens, if it does, and how it ended, if it has."""

    address: str | None = None
    ended: Ended | None = None


def attend(order: Order, tell: Tell) -> Ended:
    """Begin the end, unless it was begun before, and wait until it is over. `tell` hears what its
    log says meanwhile."""
    folder = EndFolder(order.token, order.role)
    if folder.claim():
        try:
            _begin(order, folder)
        except (MigrationError, OSError, subprocess.SubprocessError) as error:
            folder.forbid()
            end(folder.maybe_waiting())
            return Ended(begun=False, words=str(error))
    return _waited_for(folder, tell)


def forbid(token: str, role: Role, tell: Tell) -> Ended:
    """See that an end that has not begun never does; of one that has, wait until it is over."""
    folder = EndFolder(token, role)
    return Ended(begun=False) if folder.forbid() else _waited_for(folder, tell)


def _begin(order: Order, folder: EndFolder) -> None:
    environment = dict(order.environment)
    if order.hook is not None:
        run_hook(order.hook, folder.words, environment, lambda: folder.is_forbidden)
    if order.start is not None:
        start_what_waits(order.start, order.socket, order.start_s, folder)
    folder.config.write_bytes(msgspec.json.encode(order.config))
    role = "incoming" if order.role == "destination" else "migrate"
    command = [sys.executable, "-m", "pipeline", role, str(folder.config), *order.arguments]
    command += ["--json", str(folder.result_path), "--log-format", "json"]
    command += ["--qmp", str(folder.qmp)] if order.role == "source" else []
    start_with_us(command, folder.log, folder.begin)


def run_hook(
    command: Sequence[str],
    log: Path,
    environment: dict[str, str],
    given_up: Callable[[], bool] = lambda: False,
) -> None:
    """MigrationError where it cannot be run, fails, takes too long, or is `given_up` meanwhile;
    what it has started then ends with it."""
    try:
        with log.open("ab") as words:
            hook = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=words, stderr=words,
                                    env={**os.environ, **environment},
                                    start_new_session=True)  # fmt: skip
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise MigrationError(f"hook {command[0]}: {error}") from None
    try:
        _wait_for_hook(hook, given_up)
    finally:
        if hook.poll() is None:
            os.killpg(hook.pid, signal.SIGKILL)
            hook.wait()
    if hook.returncode:
        code, said = hook.returncode, last_line(log)
        raise MigrationError(f"hook {command[0]}: exit code {code}: {said}")


def _wait_for_hook(hook: subprocess.Popen[bytes], given_up: Callable[[], bool]) -> None:
    until = monotonic() + HOOK_S
    while hook.poll() is None:
        if given_up():
            raise MigrationError("it was given up")
        if monotonic() > until:
            raise MigrationError(f"hook: not done in {HOOK_S:g} s")
        sleep(LOOK_S)


def _waited_for(folder: EndFolder, tell: Tell) -> Ended:
    """Its log is told while it lasts."""
    until = monotonic() + LOOK_S * 20
    while folder.maybe_process() is None and monotonic() < until:  # it is about to be begun
        sleep(LOOK_S)
    if folder.maybe_process() is None and folder.forbid():
        return Ended(begun=False, words=folder.last_words())
    process, at = folder.maybe_process(), 0
    while process is not None:
        reap()
        alive = process.is_alive
        lines, at = new_lines(folder.log, at)
        for said in _news(lines):
            tell(said)
        if not alive:
            break
        sleep(LOOK_S)
    return Ended(begun=True, result=folder.maybe_result(), words=folder.last_words())


def _news(lines: list[bytes]) -> list[dict[str, Any]]:
    """What they say, of progress the last word alone."""
    found: list[dict[str, Any]] = []
    for line in lines:
        with suppress(msgspec.DecodeError):
            found.append(msgspec.json.decode(line, type=dict[str, Any]))
    progress = [said for said in found if said.get("event") == "progress"]
    return [said for said in found if said.get("event") != "progress"] + progress[-1:]


def look(token: str, role: Role) -> Look:
    """How it is with an end, at once."""
    folder = EndFolder(token, role)
    if folder.is_forbidden:
        return Look(ended=Ended(begun=False, words=folder.last_words()))
    process, address = folder.maybe_process(), None
    for said in _news(new_lines(folder.log, 0)[0]):
        address = said.get("socket_address", address)
    if process is None or process.is_alive:
        return Look(address=address)
    ended = Ended(begun=True, result=folder.maybe_result(), words=folder.last_words())
    return Look(address=address, ended=ended)


def stop(token: str, role: Role) -> bool:
    """Cancel an end, as far as it lets itself be cancelled; one that has not begun never does.
    Whether it was at work."""
    folder = EndFolder(token, role)
    if folder.forbid():
        return False
    process = folder.maybe_process()
    if process is None or not process.is_alive:
        return False
    os.kill(process.pid, signal.SIGTERM)
    return True


def discard(token: str, hook: Sequence[str] | None, environment: dict[str, str]) -> bool:
    """After an attempt: where no guest was to have come end what is there, and put right what it
    may leave when it is killed; last the hook. False, and nothing is ended, where a guest says that
    it has come all the same."""
    folder = EndFolder(token, "destination")
    if environment["PAGEFERRY_OUTCOME"] != "arrived":
        folder.forbid()
        end(folder.maybe_process())
        if _says_that_it_has_come(folder):
            return False
        end(folder.maybe_waiting())
        cleanup()
    if hook is not None:
        run_hook(hook, folder.words, environment)
    return True


def _says_that_it_has_come(folder: EndFolder) -> bool:
    """What hangs, or has gone, does not."""
    with suppress(MigrationError, OSError):
        return folder.maybe_waiting() is not None and has_come(folder)
    return False
