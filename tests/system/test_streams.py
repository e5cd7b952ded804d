"""Migrations through a command's pipes and through descriptors: as over a network."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import psutil
import pytest

from pipeline.leftovers.cleanup import cleanup
from tests.faults.test_kill import ENDLESS
from tests.pipeline.guests.helpers import wait_until
from tests.pipeline.monitor.talking import Client, listens
from tests.system.migrations import END_S, MIB, ROOT, Command, settings
from tests.system.streams import destination, result_in, socket_pair, two_pipes
from tests.system.test_file_guest import assert_same, file_guest, image, shm
from tests.system.test_synthetic_guest import assert_moved

pytestmark = pytest.mark.more

__all__ = ["shm"]

Ends = Callable[[], AbstractContextManager[tuple[list[int], list[int]]]]


@pytest.mark.parametrize("pipe", ["{}", "cat | {} | cat"])
def test_a_command(folder: Path, pipe: str) -> None:
    """A tunnel that only a single process can be; words of an end that get into the stream."""
    uri = "exec:" + pipe.format(destination(folder / "there.json"))
    with Command(folder, "migrate", "--uri", uri, config=settings()) as here:
        assert_moved(here.result(), result_in(folder / "there.json"))
        assert here.result().verified is True
        assert "Traceback" not in here.words


def test_a_file_through_a_command(folder: Path, shm: Path) -> None:
    """Pages that are lost or cut on their way through pipes."""
    source, target = image(shm / "source", 24 * MIB), shm / "target"
    there = destination(folder / "there.json", "--set", f"destination.path={target}")
    uri = f"exec:cat | {there}"
    config = settings(file_guest(source), parameters={"decompress-threads": 3})
    with Command(folder, "migrate", "--uri", uri, config=config) as here:
        assert_same((here.result(), result_in(folder / "there.json")), source, target)


@pytest.mark.parametrize("ends", [socket_pair, two_pipes])
def test_descriptors(folder: Path, ends: Ends) -> None:
    """A socket that is read and not written; a pipe whose other one is taken for the wrong way."""
    with ends() as (here_fds, there_fds):
        there = Command(folder, "incoming", "--uri", f"fd:{there_fds[0]}", pass_fds=there_fds)
        here = Command(
            folder, "migrate", "--uri", f"fd:{here_fds[0]}", config=settings(), pass_fds=here_fds
        )
    with here, there:
        assert_moved(here.result(), there.result())


def test_commands_behind_both_ends(folder: Path) -> None:
    """A destination that can only be a command's child, and no parent."""
    for name in ("to", "from"):
        os.mkfifo(folder / name)
    to, back = folder / "to", folder / "from"
    there = Command(folder, "incoming", "--uri", f"exec:cat {to} & exec cat > {back}")
    uri = f"exec:cat {back} & exec cat > {to}"
    with there, Command(folder, "migrate", "--uri", uri, config=settings()) as here:
        assert_moved(here.result(), there.result())
    to.unlink()
    back.unlink()


def words_of(folder: Path, uri: str, code: int = 1) -> str:
    """What a source at `uri` says in its end; the guest is at the source then."""
    with Command(folder, "migrate", "--quiet", "--uri", uri, config=settings()) as here:
        assert here.code() == code, here.words
        assert here.words.count("\n") == 1, here.words
        assert here.result().guest_alive == "source"
        return here.words.removeprefix("pageferry: failed: ").rstrip()


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("exit 3", "exec:exit 3: the stream ended, the command exited with 3"),
        ("kill -9 $$", "the stream ended, the command was killed by signal 9"),
        ("cat", "exec:cat: what answered is no pageferry destination: it says what a source says"),
        ("echo Welcome to host", "not a pageferry stream: it begins with b'Welcome '"),
        ("printf PGF", "the stream ended, the command exited with 0, in the middle of a record"),
        ("exec >&-; sleep 60", "the stream ended, the command has closed its output"),
    ],
)
def test_a_command_that_is_no_tunnel(folder: Path, command: str, told: str) -> None:
    """Half a minute of waiting for somebody who has gone, or no word of why."""
    assert told in words_of(folder, f"exec:{command}")


def test_a_stream_that_is_cut(folder: Path) -> None:
    """An end in the middle that passes for the end: the destination starts half a guest."""
    there_too = destination(folder / "there.json", "--quiet")
    uri = f"exec:dd bs=4096 count=400 status=none | {there_too} 2>/dev/null"
    words = words_of(folder, uri)
    there = result_in(folder / "there.json")
    assert there.status == "failed"
    assert there.guest_alive == "source"
    assert "in the middle of a record" in (there.error_desc or "")
    assert "the destination failed" in words or "the stream ended" in words


def test_a_cancel_reaches_the_other_end(folder: Path) -> None:
    """A command that is killed before it has heard why."""
    uri = f"exec:{destination(folder / 'there.json')}"
    with Command(folder, "migrate", "--uri", uri, config=ENDLESS) as here:
        here.wait_for("round 2")
        here.process.send_signal(signal.SIGINT)
        assert here.code() == 130, here.words
        assert result_in(folder / "there.json").status == "cancelled"


def tunnel_of(command: Command) -> psutil.Process:
    """The tunnel's process: the parent of the shell that the command had started."""
    below = psutil.Process(command.process.pid).children(recursive=True)
    return next(p.parent() for p in below if p.cmdline()[:2] == ["/bin/sh", "-c"])


def test_the_tunnel_dies(folder: Path) -> None:
    """A migration that waits for ever behind a tunnel, a command that outlives it."""
    uri = f"exec:{destination(folder / 'there.json')}"
    with Command(folder, "migrate", "--uri", uri, config=ENDLESS) as here:
        here.wait_for("round 2")
        tunnel_of(here).kill()
        assert here.code(within_s=5) == 1
        assert "the tunnel of exec:" in here.words
        assert here.result().guest_alive == "source"
    wait_until((folder / "there.json").exists, 5)
    assert result_in(folder / "there.json").status == "failed"


def test_the_source_is_killed(folder: Path) -> None:
    """A command, or a destination behind it, that nobody ends."""
    uri = f"exec:{destination(folder / 'there.json')}"
    with Command(folder, "migrate", "--uri", uri, config=ENDLESS) as here:
        here.wait_for("round 2")
        tunnel = tunnel_of(here)
        here.process.kill()
        tunnel.wait(5)
    wait_until((folder / "there.json").exists, 5)
    assert result_in(folder / "there.json").status == "failed"
    cleanup()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_decompress_worker_behind_a_tunnel_is_lost(folder: Path, number: int) -> None:
    """Frames for a dead worker that hold up all others, or that nobody sends again."""
    uri = f"exec:{destination(folder / 'there.json')}"
    with Command(folder, "migrate", "--uri", uri, config=ENDLESS) as here:
        here.wait_for("round 2")
        there = [p for p in tunnel_of(here).children(True) if "incoming" in p.cmdline()]
        lost = lane_owner(there[-1])
        lost.suspend()
        time.sleep(0.3)  # a few frames are on their way to it
        lost.send_signal(number)
        here.wait_for("another one takes its place")
        rounds = here.words.count("round ")
        wait_until(lambda: here.words.count("round ") > rounds + 1, 10)
        here.process.send_signal(signal.SIGINT)
        assert here.code() == 130, here.words
        assert here.result().redone > 0
    (folder / "there.json").unlink()


def lane_owner(command: psutil.Process) -> psutil.Process:
    """The decompress worker at lane 0 of a destination."""
    return next(
        process
        for process in command.children(recursive=True)
        if any(str(one.laddr).endswith("way.0") for one in process.net_connections("unix"))
    )


def test_a_guest_behind_a_command_stays(folder: Path) -> None:
    """A source that is tidy, and ends the process that the guest has just moved into."""
    uri = f"exec:{destination(folder / 'there.json', '--stay', '8')}"
    with Command(folder, "migrate", "--uri", uri, config=settings()) as here:
        here.wait_for("the guest is here, for")
        with pytest.raises(subprocess.TimeoutExpired):
            here.process.wait(3)
        here.process.send_signal(signal.SIGTERM)
        assert here.code(within_s=3) == 0, here.words
        assert "runs on" in here.words
        assert here.result().guest_alive == "destination"
        assert not (folder / "there.json").exists(), "it has not stayed"
    wait_until((folder / "there.json").exists, 15)
    assert result_in(folder / "there.json").self_check == "clean"


def test_with_descriptor_0_standard_output_is_silent(folder: Path) -> None:
    """A summary in the middle of whatever standard output is there."""
    with socket_pair() as (here_fds, there_fds), (folder / "out").open("w") as out:
        words = shlex.split(destination(folder / "there.json"))
        there = subprocess.Popen(words, cwd=ROOT, stdin=there_fds[0], stdout=out, stderr=out)
        uri = f"fd:{here_fds[0]}"
        here = Command(folder, "migrate", "--uri", uri, config=settings(), pass_fds=here_fds)
    with here:
        assert here.code() == 0, here.words
        assert there.wait(10) == 0
    assert result_in(folder / "there.json").self_check == "clean"
    assert "self-check" not in (folder / "out").read_text()
    (folder / "out").unlink()


def test_descriptor_0_that_qmp_names_ends_with_the_migration(folder: Path) -> None:
    """Standard output that the fork server has, so that the other side never sees an end."""
    path, there, back = folder / "qmp", os.pipe(), os.pipe()
    with (folder / "guest.yaml").open("w") as config:
        json.dump(settings(), config)
    words = [sys.executable, "-m", "pipeline", "migrate", config.name, "--wait", "--qmp", str(path)]
    here = subprocess.Popen(
        words, cwd=ROOT, stdin=there[0], stdout=back[1], stderr=subprocess.DEVNULL
    )
    os.close(there[0])
    os.close(back[1])
    with os.fdopen(there[1], "wb") as to, os.fdopen(back[0], "rb") as from_source:
        wait_until(lambda: listens(path), END_S)
        with Client(path) as client:
            client.ask("migrate", uri="fd:0")
            assert from_source.read(4) == b"PGFS"
            to.write(b"no such stream")
            to.flush()
            client.wait_for("MIGRATION", status="failed")
            os.set_blocking(from_source.fileno(), False)
            wait_until(lambda: from_source.read() == b"", 5)
            client.ask("quit")
    assert here.wait(END_S) == 1
    Path(config.name).unlink()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--uri", "fd:77"], "uri: descriptor 77 is not open"),
        *((["--uri", f"fd:{own}"], f"uri: descriptor {own} is not open") for own in (3, 4, 5)),
        (["--uri", "fd:0"], "uri: descriptor 1 cannot be written"),
        (["--uri", "fd:0", "--json", "-"], "--json: standard output is for fd:0, expected a path"),
        (["--uri", "rdma:h:1"], "uri: 'rdma:h:1' needs librdmacm and libibverbs"),
        (["--uri", "ftp:h"], "unknown migration protocol: ftp:h"),
        (["--uri", "file:/no/such"], "uri: /no/such cannot be read: No such file or directory"),
        (["--uri", "file:/dev/null"], "uri: /dev/null is not a regular file"),
    ],
)
def test_a_mistake_of_the_user(arguments: list[str], told: str) -> None:
    """A mistake that is found when a process is running already, or that is many lines long."""
    with Path("/dev/null").open() as nothing:
        done = subprocess.run(
            [sys.executable, "-m", "pipeline", "incoming", "--quiet", *arguments],
            cwd=ROOT,
            stdin=nothing,
            stdout=nothing,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith(f"pageferry: {told}")
    assert done.stderr.count("\n") == 1
