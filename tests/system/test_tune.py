"""An experiment with real migrations: killed, resumed, and its best setting taken as it is."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from pipeline.laboratory.links import can_shape
from tests.browser import needs_a_browser, opened
from tests.leaks import processes_of
from tests.pipeline.guests.helpers import wait_until
from tests.system.migrations import Command

pytestmark = pytest.mark.more
EXPERIMENT = """
name: two
base:
  guest: {kind: synthetic, memory: 8MiB, workload: {working-set: 1MiB, dirty-rate: 1MiB}}
  verify: frames
  parameters: {compress-threads: 1, decompress-threads: 1}
space:
  codec: [none, zlib, nothing-better]
repeat: 2
"""
LINK = "links: [{bandwidth: 20MiB}]\n"


def experiment(folder: Path, text: str) -> Path:
    """A file of that text."""
    path = folder / "two.yaml"
    path.write_text(text.replace(", nothing-better", ""))
    return path


def parquet(path: Path) -> list[dict[str, Any]]:
    """Its rows; read by another process, since polars keeps threads and descriptors."""
    code = (
        "import json, polars, sys; print(json.dumps(polars.read_parquet(sys.argv[1]).to_dicts()))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], check=True, capture_output=True)
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    return rows


def table(folder: Path) -> list[dict[str, str]]:
    """The rows of the other file."""
    with (folder / "o/trials.csv").open() as file:
        return list(csv.DictReader(file))


def kill_all(folder: Path) -> list[psutil.Process]:
    """Kill what was started there; what that was."""
    found = processes_of(folder)
    for process in found:
        process.kill()
    return found


def tuned(folder: Path, text: str, *options: str) -> Command:
    """The command, started."""
    return Command(
        folder, "tune", str(experiment(folder, text)), "--out", str(folder / "o"), *options
    )


@pytest.mark.parametrize("link", ["", LINK], ids=["no link", "a link"])
def test_it_is_killed_and_goes_on(folder: Path, link: str) -> None:
    """Trials that are missing, or double; namespaces and processes that are left."""
    with tuned(folder, EXPERIMENT + link) as killed:
        killed.wait_for("2 of 5")
        killed.process.kill()
        killed.process.wait()
        wait_until(lambda: not kill_all(folder))
    with tuned(folder, EXPERIMENT + link, "--resume") as resumed:
        assert resumed.code(60) == 0, resumed.words
        assert "the best of 2 settings of two, by total-time" in resumed.output
    rows = parquet(folder / "o/trials.parquet")
    assert sorted((row["setting.codec"], row["repetition"]) for row in rows) == sorted(
        [("none", -1), *((codec, n) for codec in ("none", "zlib") for n in (0, 1))]
    )
    assert len(table(folder)) == 5
    assert {row["error"] for row in rows} == {None}
    assert all(row["cpu-seconds"] > 0.1 for row in rows)
    shaped = {row["link.shaped-by"] for row in rows}
    assert shaped == ({"tc" if can_shape() else "sender"} if link else {None})
    with Command(folder, "run", str(folder / "o/best.yaml")) as run:
        assert run.code() == 0, run.words
    shutil.rmtree(folder / "o")
    (folder / "two.yaml").unlink()
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=False)
    for command in (killed, resumed):  # others make their own meanwhile
        assert f"pf-{command.process.pid}" not in listed.stdout


def test_a_trial_that_fails_is_a_row(folder: Path) -> None:
    """A night that ends with the first setting that does not work."""
    space = "space: {parameters.downtime-limit: [1, 2000]}\nrepeat: 1\nwarm-up: 0"
    text = EXPERIMENT.split("space")[0].replace("frames", "full") + space
    with tuned(folder, text) as tuning:
        assert tuning.code(60) == 0, tuning.words
        assert "downtime-limit: 2000" in tuning.output
    errors = {row["setting.parameters.downtime-limit"]: row["error"] for row in table(folder)}
    assert errors["2000"] == ""
    assert errors["1"]
    shutil.rmtree(folder / "o")
    (folder / "two.yaml").unlink()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts a file system")
def test_the_disk_is_full_and_then_is_not(folder: Path) -> None:
    """A traceback; trials that have failed by it alone, are gone with it, or are made again."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=276k", "tmpfs", str(folder / "o")]
    (folder / "o").mkdir()
    if subprocess.run(mount, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    many = EXPERIMENT.replace("repeat: 2", "repeat: 5")
    try:
        with tuned(folder, many) as tuning:
            assert tuning.code(60) == 2, tuning.words
            last = tuning.words.splitlines()[-1]
        assert last.startswith("pageferry: ")
        assert "No space left on device" in last
        kept = len((folder / "o/trials.jsonl").read_bytes().splitlines()) - 1
        assert 0 < kept < 11
        subprocess.run(["mount", "-o", "remount,size=2m", str(folder / "o")], check=True)
        with tuned(folder, many, "--resume") as resumed:
            assert resumed.code(60) == 0, resumed.words
            assert len(resumed.words.splitlines()) == 11 - kept
        made = {(row["setting.codec"], row["repetition"], row["error"]) for row in table(folder)}
        assert len(table(folder)) == len(made) == 11
        assert {error for *_, error in made} == {""}
    finally:
        subprocess.run(["umount", folder / "o"], check=True)
    (folder / "o").rmdir()
    (folder / "two.yaml").unlink()


@needs_a_browser
def test_the_report_opens_in_a_browser(folder: Path) -> None:
    """A page that asks the network for something, or of which a chart is missing."""
    with tuned(folder, EXPERIMENT, "--quiet") as tuning:
        assert tuning.code(60) == 0, tuning.words
        assert tuning.words == ""
    assert "What each setting does" in opened(folder / "o/report.html", folder / "chromium")
    for path in ("o", "chromium"):
        shutil.rmtree(folder / path)
    (folder / "two.yaml").unlink()
