"""A user's mistake is one line and exit 2, before anything has been started."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest
import zmq

from pipeline.config.keys import make_keys
from pipeline.shell.cli import run_command
from tests.pipeline.leftovers.living import Guests
from tests.system.migrations import ROOT, SYNTHETIC, Command, listen, settings

GUEST = "guest: {kind: synthetic, memory: 1MiB, workload: {working-set: 64KiB}}\n"
PARAMETERS = "parameters: {compress-threads: 1, decompress-threads: 1}\n"


def complaint(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line that `arguments` get; AssertionError where a process was started."""
    before = set(psutil.Process().children(recursive=True))
    assert run_command(list(arguments)) == 2
    assert set(psutil.Process().children(recursive=True)) <= before
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("pageferry: ")
    assert shown.err.count("\n") == 1
    return shown.err.removeprefix("pageferry: ")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "found an empty file"),
        (GUEST + "codec: zlib\ncodec: zstd\n", "codec"),
        (GUEST + "codek: zlib\n", "codek: found an unknown key (did you mean codec?)"),
        (GUEST + "parameters: {max-bandwidth: 1MB}\n", "expected bytes"),
        (GUEST + "parameters: {compress-level: 10}\n", "a value between 0 and 9"),
        (GUEST + "parameters: {compress-threads: 0}\n", "a value between 1 and 255"),
        (GUEST + "parameters: {compress-threads: 256}\n", "a value between 1 and 255"),
        (GUEST + "parameters: {decompress-threads: 0}\n", "a value between 1 and 255"),
        (GUEST + "uri: 'tcp:127.0.0.1'\n", "has no port"),
        (GUEST + f"uri: 'unix:/tmp/{'x' * 99}'\n", "has a path of 104 bytes, expected at most 103"),
        (GUEST + "uri: 'fd:3'\n", "uri: run has both ends, expected tcp:HOST:PORT or unix:PATH"),
        ("guest: {kind: file, path: /no/such/file}\n", "/no/such/file does not exist"),
        ("guest: {kind: file, path: /dev/null}\n", "/dev/null is not a regular file"),
        (GUEST + "destination: {path: /dev}\n", "/dev is not a regular file"),
        (GUEST + "destination: {path: /no/such/folder/x}\n", "there is no folder"),
    ],
)
def test_a_mistake_in_the_file(
    folder: Path, capsys: pytest.CaptureFixture[str], text: str, told: str
) -> None:
    """A mistake that is found only by the engine, or by the other end."""
    path = folder / "c.yaml"
    path.write_text(text)
    assert told in complaint(capsys, "run", str(path))
    path.unlink()


def refusal(folder: Path, command: str, *, guest: Path | None, destination: Path | None) -> str:
    """Why `command` refuses to begin, where these guests are named."""
    uri = f"unix:{folder}/c"
    config = settings({**SYNTHETIC, "socket": None if guest is None else str(guest)}, uri=uri)
    config["destination"] = {"socket": None if destination is None else str(destination)}
    with Command(folder, command, "--quiet", config=config) as made:
        assert made.code() == 2, made.words
        assert made.words.count("\n") == 1
        return made.words


def test_a_guest_that_is_not_there_or_not_fit(folder: Path) -> None:
    """A typing error that is taken for a failure, and tried again by a script; at the destination
    one that is found only when a source has come."""
    dead, missing = folder / "dead", folder / "missing"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as bound:
        bound.bind(str(dead))
    with ExitStack() as stack:
        guests = Guests(folder, stack)
        guests.start("g", "i")
        guests.move("g", "i", "ab" * 16)
        gone, runs = guests.at("g"), guests.at("i")
        for path, words in (
            (missing, "no guest listens"),
            (dead, "no guest answers"),
            (gone, "was given away"),
        ):
            told = refusal(folder, "migrate", guest=path, destination=None)
            assert told.startswith("pageferry: guest.socket: ")
            assert words in told
            told = refusal(folder, "incoming", guest=None, destination=path)
            assert told.startswith("pageferry: destination.socket: ")
            assert words in told
        assert "runs already" in refusal(folder, "run", guest=runs, destination=runs)
        for name in ("g", "i"):
            guests.end(name)
    dead.unlink()


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def config(folder: Path) -> Iterator[str]:
    path = folder / "c.yaml"
    path.write_text(GUEST + PARAMETERS)
    yield str(path)
    path.unlink()


@pytest.mark.parametrize("command", ["incoming", "run"])
def test_a_port_in_use(
    folder: Path, taken_port: int, config: str, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A destination that fails later, or a source that talks to whoever has the port."""
    uri = f"tcp:127.0.0.1:{taken_port}"
    assert folder.exists()
    line = complaint(capsys, command, config, "--quiet", "--set", f"uri={uri}")
    assert line.startswith("uri: cannot listen on tcp:127.0.0.1:")
    assert "in use" in line


@pytest.mark.parametrize(
    ("address", "told"), [("10.255.255.254:4444", "cannot listen"), ("no.such.host.:1", "uri: ")]
)
def test_an_address_that_is_not_here(
    folder: Path, tmp_path: Path, address: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A traceback of the messaging library."""
    assert folder.exists()
    make_keys(tmp_path / "keys")
    keys = f"{{keys: {tmp_path}/keys, peers: [{tmp_path}/keys/pageferry.key]}}"
    options = ("--uri", f"tcp:{address}", "--set", f"security={keys}")
    assert told in complaint(capsys, "incoming", "--quiet", *options)


@pytest.mark.parametrize("command", ["incoming", "migrate", "run"])
@pytest.mark.parametrize("host", ["", "0.0.0.0", "[::]", "192.0.2.1"])
def test_other_machines_without_keys(
    folder: Path, config: str, command: str, host: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A guest's memory on a network, for all to read."""
    assert folder.exists()
    line = complaint(capsys, command, config, "--quiet", "--set", f"uri='tcp:{host}:4444'")
    assert "is not of this machine alone" in line
    assert "pageferry keygen DIR" in line


@pytest.mark.parametrize("command", ["incoming", "migrate", "run"])
@pytest.mark.parametrize("host", ["no.such.host.", "127.0.0.1.1", "x" * 70])
def test_a_host_that_nobody_knows(
    folder: Path, config: str, command: str, host: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A user who makes keys for a typing error."""
    assert folder.exists()
    line = complaint(capsys, command, config, "--quiet", "--set", f"uri='tcp:{host}:4444'")
    assert line.startswith(f"uri: tcp:{host}:4444: no address of {host} is known: ")
    assert "key" not in line


@pytest.mark.parametrize("command", ["incoming", "migrate"])
def test_keys_that_others_can_read(
    folder: Path, tmp_path: Path, config: str, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A secret that is none, taken as if it was."""
    assert folder.exists()
    make_keys(tmp_path / "keys")
    (tmp_path / "keys/pageferry.key_secret").chmod(0o644)
    keys = f"{{keys: {tmp_path}/keys, peers: [{tmp_path}/keys/pageferry.key]}}"
    options = ("--uri", "tcp:127.0.0.1:0", "--set", f"security={keys}")
    assert "has mode 0644" in complaint(capsys, command, config, "--quiet", *options)


def test_keygen_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A key in use that is overwritten; a traceback."""
    assert run_command(["keygen", str(tmp_path / "keys")]) == 0
    assert capsys.readouterr().out.strip() in (tmp_path / "keys/pageferry.key").read_text()
    assert "are not overwritten" in complaint(capsys, "keygen", str(tmp_path / "keys"))
    assert "Not a directory" in complaint(capsys, "keygen", "/dev/null/keys")


def test_a_file_that_is_no_socket(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The user's file, removed to make room for a socket."""
    precious = folder / "precious"
    precious.write_text("precious")
    line = complaint(capsys, "incoming", "--quiet", "--uri", f"unix:{precious}")
    assert "is a file or folder" in line
    assert precious.read_text() == "precious"
    precious.unlink()


def test_a_unix_socket_in_use(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The socket of another destination, taken away from it."""
    with zmq.Context() as context, context.socket(zmq.ROUTER) as other:
        other.bind(f"ipc://{folder}/control")
        line = complaint(capsys, "incoming", "--quiet", "--uri", f"unix:{folder}/control")
    assert "somebody does" in line
    (folder / "control").unlink()


def test_a_dead_unix_socket_is_no_obstacle(folder: Path) -> None:
    """A destination that was killed once, and never starts again."""
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(folder / "control"))
    with listen(folder, "--uri", f"unix:{folder}/control") as there:
        assert there.uri.path == f"{folder}/control"
        there.process.terminate()
        assert there.code() == 130, there.words
    assert not (folder / "control").exists()


def run_without(folder: Path, config: str, *packages: str, codec: str) -> tuple[int, str]:
    """Exit code and words of `run` where `packages` are not installed."""
    hidden = folder / "sitecustomize.py"
    hidden.write_text(f"import sys; sys.modules.update(dict.fromkeys({packages!r}))\n")
    done = subprocess.run(
        [
            sys.executable,
            "-B",
            "-m",
            "pipeline",
            "run",
            config,
            "--quiet",
            "--set",
            f"codec={codec}",
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    hidden.unlink()
    return done.returncode, done.stderr


@pytest.mark.parametrize(("codec", "package"), [("zstd", "zstandard"), ("lz4", "lz4")])
def test_a_codec_that_is_not_installed(folder: Path, config: str, codec: str, package: str) -> None:
    """A worker that fails at its first page, on the machine of somebody who installed less."""
    line = f"pageferry: codec: {codec} needs the package {package}: pip install {package}"
    assert run_without(folder, config, package, codec=codec) == (2, line + "\n")


def test_the_other_codecs_need_no_package(folder: Path, config: str) -> None:
    """An optional package that is imported all the same."""
    assert run_without(folder, config, "zstandard", "lz4", "isal", codec="zlib") == (0, "")


def test_a_limit_of_open_files_that_is_too_low(folder: Path) -> None:
    """An abort of libzmq, and processes left behind."""
    script = f"ulimit -n 40; exec {sys.executable} -m pipeline run configs/quickstart.yaml"
    done = subprocess.run(["sh", "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "pageferry: the limit of open files is 40, 96 are needed: ulimit -n\n"
    assert not list(folder.iterdir())


def test_code_in_the_current_folder_is_not_run(folder: Path) -> None:
    """Somebody else's folder, in which a command of ours does what that somebody likes."""
    for name in ("typer.py", "zstandard.py", "pipeline/__init__.py"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(f"open({str(folder / 'was-run')!r}, 'w')\n")
    config = folder / "c.yaml"
    config.write_text(json.dumps(settings()))
    done = subprocess.run(
        [sys.executable, "-P", "-m", "pipeline", "run", str(config), "--quiet"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert not (folder / "was-run").exists()
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
