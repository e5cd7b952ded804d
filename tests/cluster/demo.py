"""`make demo-batch`: six guests leave a host that is drained, and run on at two others."""

import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import psutil

from tests.pipeline.guests.helpers import wait_until

ROOT = Path(__file__).parents[2]
PLAN = ROOT / "configs/batch/embedded.yaml"
PAGEFERRY = [sys.executable, "-m", "pipeline"]
GUESTS = [f"g{number}" for number in range(1, 7)]


def socket(folder: str, name: str) -> Path:
    """Where a guest of the plan answers at host a."""
    return Path(folder, f"ferry-{name}-a.sock")


def start(folder: str, name: str) -> subprocess.Popen[bytes]:
    """A guest at host a."""
    options = ["--set", "guest.memory=32MiB", "--socket", str(socket(folder, name)), "--quiet"]
    return subprocess.Popen([*PAGEFERRY, "guest", "configs/guest.yaml", *options], cwd=ROOT)


def end_all(folder: str) -> None:
    """Those that live at a socket in `folder`."""
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if "guest" in words and any(word.startswith(f"{folder}/ferry-") for word in words):
            with suppress(psutil.Error):
                process.send_signal(signal.SIGTERM)


def main() -> int:
    """The exit code of the batch."""
    os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    with tempfile.TemporaryDirectory(prefix="pageferry-demo-") as folder:
        plan = Path(folder) / "embedded.yaml"
        plan.write_text(PLAN.read_text().replace("/tmp/ferry-", f"{folder}/ferry-"))
        started = [start(folder, name) for name in GUESTS]
        try:
            wait_until(lambda: all(socket(folder, name).exists() for name in GUESTS), within_s=60)
            for verb in ("plan", "run"):
                done = subprocess.run([*PAGEFERRY, "batch", verb, str(plan)], cwd=ROOT, check=False)
            return done.returncode
        finally:
            end_all(folder)
            for guest in started:
                guest.wait(20)


if __name__ == "__main__":
    sys.exit(main())
