"""Two small machines, and a guest that moves from the one to the other: `make demo-qemu`."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.qemu.machine import QEMU, Qemu, two_machines
from tests.qemu.sector import Guest

GUEST = Guest(mib=256, working=range(1024, 17408), dirty_rate=2000, tick_ms=5)
SHOWN = 3


def say(words: str) -> None:
    """At once, between what the command shows."""
    sys.stdout.write(f"{words}\n")
    sys.stdout.flush()


def show(machine: Qemu, lines: slice) -> None:
    """What a guest has said, with its time."""
    said = machine.lines()[lines]
    for line in said:
        say(f"    {line.at - said[0].at:8.3f} s  {line.text}")


def main() -> int:
    """Move it, show that it goes on."""
    if shutil.which(QEMU) is None:
        say(f"the demonstration needs {QEMU}: apt-get install qemu-system-x86")
        return 1
    with (
        TemporaryDirectory(prefix="pageferry-demo-") as name,
        two_machines(Path(name), GUEST) as (here, there),
    ):
        here.wait_up()
        here.wait_beats(400)
        return move(Path(name), here, there)


def move(folder: Path, here: Qemu, there: Qemu) -> int:
    """By the command, as a user would; its exit code."""
    config = folder / "demo.yaml"
    guest, waiting = {"kind": "qemu", "qmp": str(here.qmp)}, {"qmp": str(there.qmp)}
    config.write_text(json.dumps({"name": "demo", "guest": guest, "destination": waiting}))
    say("A machine runs; its guest writes 2,000 pages a second, and counts on the serial port:")
    show(here, slice(-SHOWN, None))
    say("It moves into another machine:")
    code = subprocess.run(
        [sys.executable, "-m", "pipeline", "run", str(config)], check=False
    ).returncode
    if code:
        return code
    there.wait_beats(GUEST.ticks_of_a_pass)
    seconds, ticks = here.gap(there)
    say(f"It was silent for {seconds * 1000:.0f} ms, and goes on {ticks} further:")
    show(here, slice(-SHOWN, None))
    say("    -- here it ends, there it goes on --")
    show(there, slice(1, 1 + SHOWN))
    bad = here.bad() + there.bad()
    say(f"It has looked at all its memory since: {len(bad) or 'no'} damaged pages.")
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
