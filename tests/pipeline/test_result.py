"""The result: names, nulls, where it is written, and the exit code that follows from it."""

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from pipeline.result import (
    Compression,
    DowntimeParts,
    Ram,
    Result,
    RoundResult,
    Shares,
    Stages,
    encode_result,
    exit_code,
    write_whole,
)
from protocol.status import Status

DOCUMENTATION = Path(__file__).parents[2] / "docs/configuration.md"

FULL = Result(
    status=Status.COMPLETED,
    ram=Ram(),
    compression=Compression(),
    rounds=[
        RoundResult(
            round_no=1, pages=2, zero_pages=1, bytes=8192, wire_bytes=9, ms=3, dirty_pages_rate=0
        )
    ],
    downtime_parts=DowntimeParts(),
    stages=Stages(scan=Shares(busy=0.5, starved=0.25, blocked=0.25)),
)


def fields() -> dict[str, Any]:
    decoded: dict[str, Any] = json.loads(encode_result(FULL))
    return decoded


def test_names_are_the_documented_ones() -> None:
    """A program that reads the result finds a field under another name."""
    text = DOCUMENTATION.read_text().split("## Result")[1].split("## Exit")[0]
    rows = [line.split("|")[1:3] for line in text.splitlines() if line.startswith("| `")]
    assert [name.strip(" `") for name, _ in rows] == list(fields())
    documented = {name.strip(" `"): meaning for name, meaning in rows}
    parts = {
        "ram": fields()["ram"],
        "compression": fields()["compression"],
        "rounds": fields()["rounds"][0],
        "downtime-parts": fields()["downtime-parts"],
        "stages": {**fields()["stages"], **fields()["stages"]["scan"]},
    }
    for name, part in parts.items():
        assert [key for key in part if f"`{key}`" not in documented[name]] == []


def test_query_migrates_names_are_qemus() -> None:
    """A program that reads QEMU's answer cannot read this one."""
    assert list(fields()["ram"]) == [
        "transferred", "remaining", "total", "duplicate", "skipped", "normal", "normal-bytes",
        "dirty-pages-rate", "mbps", "dirty-sync-count", "page-size", "pages-per-second",
    ]  # fmt: skip
    assert list(fields()["compression"]) == [
        "pages", "busy", "busy-rate", "compressed-size", "compression-rate",
    ]  # fmt: skip
    assert next(iter(fields()["rounds"][0])) == "round"


def test_what_was_not_reached_is_null() -> None:
    """A field that is missing, or 0 where nothing was measured."""
    empty = json.loads(encode_result(Result()))
    assert set(empty) == set(fields())
    assert empty["status"] == "none"
    assert empty["downtime"] is None
    assert empty["verified"] is None
    assert empty["rounds"] == []


def test_rounds_are_not_shared() -> None:
    """Two results that fill one list."""
    Result().rounds.append(FULL.rounds[0])
    assert Result().rounds == []


def test_written_to_a_file(tmp_path: Path) -> None:
    """A reader that sees half a result, or a file left beside it."""
    path = tmp_path / "out.json"
    path.write_text("old")
    old = path.open()
    write_whole(encode_result(FULL), str(path))
    assert json.loads(path.read_text()) == fields()
    assert old.read() == "old"
    old.close()
    assert list(tmp_path.iterdir()) == [path]


def test_failing_to_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A temporary file left behind by a full disk."""

    def fail(*_: object) -> None:
        raise OSError("full")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="full"):
        write_whole(encode_result(FULL), str(tmp_path / "out.json"))
    assert list(tmp_path.iterdir()) == []


def test_written_to_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    """A file called "-"."""
    write_whole(encode_result(FULL), "-")
    assert json.loads(capsys.readouterr().out) == fields()
    assert not Path("-").exists()


def test_a_pipe_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    """/dev/null replaced by a file when root asks for `--json /dev/null`."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_whole(encode_result(FULL), str(pipe))
        assert json.loads(os.read(reader, 1 << 16)) == fields()
    finally:
        os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode)


@pytest.mark.parametrize(
    ("result", "code"),
    [
        (Result(status=Status.COMPLETED, verified=True, self_check="clean"), 0),
        (Result(status=Status.COMPLETED, verified="frames"), 0),
        (Result(status=Status.COMPLETED, verified=None), 0),
        (Result(status=Status.COMPLETED, verified=False), 1),
        (Result(status=Status.COMPLETED, verified=True, self_check="page 7 is stale"), 1),
        (Result(status=Status.FAILED), 1),
        (Result(status=Status.CANCELLED), 130),
        (Result(status=Status.ACTIVE), 1),
    ],
)
def test_exit_codes(result: Result, code: int) -> None:
    """A damaged guest reported as success to a script."""
    assert exit_code(result) == code
