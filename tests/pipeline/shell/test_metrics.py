"""`--metrics`: which addresses it takes, what a scrape shows, and that nothing is left of it."""

import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import structlog
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from pipeline.progress import Counts, Observer, Progress
from pipeline.shell.cli import run_command
from pipeline.shell.metrics import exporting
from pipeline.shell.metrics_server import CLIENT_SECONDS, MAX_CLIENTS, parse_address
from protocol.errors import ConfigError
from protocol.session import Role
from protocol.status import Status
from tests.leaks import nothing_left
from tests.pipeline.guests.helpers import wait_until
from tests.pipeline.shell.scraping import samples, scrape

ROOT = Path(__file__).parents[3]
SOURCE = Progress(
    Status.ACTIVE, 1.5, 2, 50.0, transferred=1000, remaining=2000, guest_rate=10.0, wire_rate=5.0,
    dirty_pages_rate=3.0, ratio=2.5, expected_downtime_ms=250.0,
    counts=Counts(
        4096, {"zero": 1, "normal": 2, "skipped": 3}, 4, {"compress": 5},
        {"compress": 0.5, "send": 0.25}, 125.0,
    ),
)  # fmt: skip


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    threads = set(threading.enumerate())
    with nothing_left():
        yield
    structlog.reset_defaults()
    assert set(threading.enumerate()) == threads


def exported(stack: ExitStack, address: str = "0", role: Role = "source") -> tuple[Observer, str]:
    """What to tell, and where it can be scraped."""
    with capture_logs() as told:
        show = stack.enter_context(exporting(address, role))
    [url] = [line["url"] for line in told if line["event"] == "metrics"]
    return show, url


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("127.0.0.1:9100", ("127.0.0.1", 9100)),
        ("a.example:0", ("a.example", 0)),
        ("[::1]:65535", ("::1", 65535)),
        ("[fe80::1%eth0]:1", ("fe80::1%eth0", 1)),
        (":9100", ("127.0.0.1", 9100)),
        ("9100", ("127.0.0.1", 9100)),
    ],
)
def test_addresses(text: str, found: tuple[str, int]) -> None:
    """A port that is open to all where nobody has asked for that."""
    assert parse_address(text) == found


@pytest.mark.parametrize(
    "text", ["", "host", "host:", "::1:9100", "h:65536", "h:1234567", "h:-1", "h:9x", "h: 1", "h:٣"]
)
def test_what_is_no_address(text: str) -> None:
    """A command that listens elsewhere than it was told to."""
    with pytest.raises(ConfigError, match=r"^--metrics: found .*expected"):
        parse_address(text)


@pytest.mark.parametrize(
    "text", ["no.such.host.invalid:0", "[::g]:0", "192.0.2.1:0", f"{'a' * 70}:0"]
)
def test_what_nobody_can_listen_at(text: str) -> None:
    """A traceback for a name that means nothing here."""
    with pytest.raises(ConfigError, match=r"^--metrics: "), exporting(text, "source"):
        pass


def test_all_that_is_known_is_shown() -> None:
    """A wrong unit; a number below another name; dirty pages that are taken for bytes."""
    with ExitStack() as stack:
        show, url = exported(stack)
        show(SOURCE)
        found = scrape(url)
    assert found.pop(("pageferry_status", "active")) == 1
    assert {found.pop(("pageferry_status", one)) for one in Status if one != "active"} == {0}
    assert found.pop(("pageferry_info", f"source,{version('pageferry')}")) == 1
    assert found == {
        ("pageferry_elapsed_seconds", ""): 1.5,
        ("pageferry_rounds_total", ""): 2,
        ("pageferry_transferred_bytes_total", ""): 1000,
        ("pageferry_remaining_bytes", ""): 2000,
        ("pageferry_memory_bytes", ""): 4096,
        ("pageferry_memory_bytes_per_second", ""): 10,
        ("pageferry_wire_bytes_per_second", ""): 5,
        ("pageferry_dirty_pages_per_second", ""): 3,
        ("pageferry_ratio", ""): 2.5,
        ("pageferry_expected_downtime_seconds", ""): 0.25,
        ("pageferry_downtime_seconds", ""): 0.125,
        ("pageferry_redone_frames_total", ""): 4,
        ("pageferry_pages_total", "zero"): 1,
        ("pageferry_pages_total", "normal"): 2,
        ("pageferry_pages_total", "skipped"): 3,
        ("pageferry_workers", "compress"): 5,
        ("pageferry_stage_busy_seconds_total", "compress"): 0.5,
        ("pageferry_stage_busy_seconds_total", "send"): 0.25,
    }


def test_what_is_not_known_is_not_shown() -> None:
    """A destination that says that nothing is left to be sent; a downtime of 0 s."""
    with ExitStack() as stack:
        show, url = exported(stack, role="destination")
        before = scrape(url)
        show(Progress(Status.ACTIVE, 1.0, 1, received=8192))
        found = scrape(url)
    assert before["pageferry_status", "none"] == 1
    assert ("pageferry_info", f"destination,{version('pageferry')}") in found
    assert found["pageferry_received_bytes_total", ""] == 8192
    names = {name for name, _ in found}
    assert not names & {
        "pageferry_transferred_bytes_total", "pageferry_remaining_bytes", "pageferry_ratio",
        "pageferry_downtime_seconds", "pageferry_pages_total", "pageferry_redone_frames_total",
    }  # fmt: skip


def test_each_metric_is_documented() -> None:
    """A dashboard that is made from a list which is not true."""
    table = (ROOT / "docs/watching.md").read_text()
    rows = re.findall(r"^\| `(pageferry_\w+)` \| \w+ \| ([^|]*)\|", table, re.MULTILINE)
    with ExitStack() as stack:
        show, url = exported(stack)
        show(SOURCE)
        shown = list(samples(url))
        show(Progress(Status.ACTIVE, received=1))
        shown += samples(url)
    assert {name: set(re.findall(r"`(\w+)`", labels)) for name, labels in rows} == {
        one.name: set(one.labels) for one in shown
    }


def test_two_commands_do_not_disturb_each_other() -> None:
    """Metrics of another migration, or names that are registered twice."""
    before = list(REGISTRY.collect())
    with ExitStack() as stack:
        (one, first), (other, second) = exported(stack), exported(stack)
        one(Progress(Status.ACTIVE, 1.0))
        other(Progress(Status.FAILED, 2.0))
        elapsed = ("pageferry_elapsed_seconds", "")
        assert (scrape(first)[elapsed], scrape(second)[elapsed]) == (1.0, 2.0)
    assert [family.name for family in REGISTRY.collect()] == [family.name for family in before]


def silent(url: str) -> socket.socket:
    """A client that connects and says nothing."""
    host, _, port = url.removeprefix("http://").removesuffix("/metrics").rpartition(":")
    return socket.create_connection((host, int(port)))


def test_a_client_that_is_silent_holds_up_nothing() -> None:
    """A command that does not end, or others that cannot scrape, until a client has spoken."""
    with ExitStack() as clients:
        with ExitStack() as stack:
            _, url = exported(stack)
            for _ in range(MAX_CLIENTS // 2):
                clients.enter_context(silent(url)).sendall(b"GET /met")
            for _ in range(2 * MAX_CLIENTS):
                assert scrape(url)
            began = time.monotonic()
        assert time.monotonic() - began < CLIENT_SECONDS / 2


def test_a_client_that_is_silent_for_long_is_hung_up_on() -> None:
    """Nobody who can scrape any more, since all places are taken for ever."""
    with ExitStack() as stack, ExitStack() as clients:
        _, url = exported(stack)
        before = threading.active_count()
        for _ in range(MAX_CLIENTS):
            clients.enter_context(silent(url))
        wait_until(lambda: threading.active_count() - before == MAX_CLIENTS)
        wait_until(lambda: threading.active_count() == before, 2 * CLIENT_SECONDS)
        assert scrape(url)


def test_there_are_few_clients_at_a_time() -> None:
    """Descriptors and threads that a migration needs, taken by whoever connects."""
    with ExitStack() as stack, ExitStack() as clients:
        _, url = exported(stack)
        before = threading.active_count()
        made = [clients.enter_context(silent(url)) for _ in range(3 * MAX_CLIENTS)]
        wait_until(lambda: threading.active_count() - before == MAX_CLIENTS)
        made[-1].settimeout(5)
        assert made[-1].recv(1) == b"", "one too many is hung up on"
        assert threading.active_count() - before == MAX_CLIENTS


def test_rubbish_is_answered_and_forgotten(capfd: pytest.CaptureFixture[str]) -> None:
    """A traceback in the log for each scanner of ports; a server that one client has ended."""
    with ExitStack() as stack:
        _, url = exported(stack)
        for words in (b"\0\xff\r\n\r\n", b"POST / HTTP/9.9\r\n\r\n", b"GET /" + b"a" * 70_000):
            with silent(url) as client:
                client.sendall(words)
        assert scrape(url)
    assert capfd.readouterr() == ("", "")


def test_whoever_opens_it_to_others_is_warned() -> None:
    """What a machine does shown to the whole network, and nobody has noticed."""
    told: dict[str, list[Any]] = {}
    for address in ("0.0.0.0:0", "127.0.0.1:0", "[::1]:0"):
        with capture_logs() as lines, exporting(address, "source"):
            told[address] = [line["log_level"] for line in lines]
    assert list(told.values()) == [["info", "warning"], ["info"], ["info"]]


def complaint(capsys: pytest.CaptureFixture[str], file: Path, address: str) -> str:
    """The line that `run --metrics ADDRESS` ends with, and nothing was started."""
    file.write_text("guest: {kind: synthetic, memory: 1MiB}\n")
    assert run_command(["run", str(file), "--quiet", "--metrics", address]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    return shown.err


def _taken(stack: ExitStack) -> str:
    return exported(stack)[1].removeprefix("http://").removesuffix("/metrics")


@pytest.mark.parametrize(
    ("address", "line"),
    [
        (lambda _: "x", "--metrics: found 'x', expected HOST:PORT, [IPV6]:PORT or PORT"),
        (_taken, "--metrics: cannot listen at ADDRESS: Address already in use"),
    ],
)
def test_mistakes_are_one_line(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    address: Callable[[ExitStack], str],
    line: str,
) -> None:
    """A migration that goes on unwatched, a traceback, or a line in the history."""
    with ExitStack() as stack:
        text = address(stack)
        told = complaint(capsys, tmp_path / "c.yaml", text)
    assert told == f"pageferry: {line.replace('ADDRESS', text)}\n"


def test_a_package_that_is_missing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A traceback where the extra was not installed."""
    monkeypatch.delitem(sys.modules, "pipeline.shell.metrics")
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    told = complaint(capsys, tmp_path / "c.yaml", "0")
    assert told.startswith("pageferry: --metrics needs the package ")
    assert "pip install prometheus-client\n" in told


def test_no_scrape_is_cut_short_by_the_end() -> None:
    """An empty answer with status 200, at which counters seem to vanish."""
    answers: list[dict[tuple[str, str], float]] = []

    def scrape_on(url: str) -> None:
        with suppress(OSError):
            while True:
                answers.append(scrape(url))

    for _ in range(20):
        with ExitStack() as stack:
            _, url = exported(stack)
            clients = [threading.Thread(target=scrape_on, args=(url,)) for _ in range(3)]
            for client in clients:
                client.start()
            time.sleep(0.03)
        for client in clients:
            client.join()
    assert answers
    assert all(("pageferry_elapsed_seconds", "") in answer for answer in answers)
