"""The mutations of this folder: patches, each of which puts a mistake back into the code.

A patch begins with a line that says what it breaks, and one `test: NODE` that names
the test which must fail then.
"""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
_TEST = re.compile(r"^test: (\S.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Mutation:
    """One patch: what it breaks, and the node of the test that must notice."""

    path: Path
    breaks: str
    test: str

    @property
    def name(self) -> str:
        """The name of the patch."""
        return self.path.stem

    def apply(self, tree: Path) -> str | None:
        """Break the copy of the sources in `tree`; why that failed, None when it did not.

        Of the one line of context on each side of a change, one may have changed.
        """
        done = subprocess.run(
            ["git", "apply", "-C1", str(self.path)],
            cwd=tree,
            env={name: value for name, value in os.environ.items() if not name.startswith("GIT_")},
            capture_output=True,
            text=True,
        )
        return done.stderr.strip() or "does not apply" if done.returncode else None


def mutations() -> list[Mutation]:
    """All of them, by name; AssertionError for one that names no test."""
    found = []
    for path in sorted(HERE.glob("*.patch")):
        text = path.read_text()
        match = _TEST.search(text)
        assert match is not None, f"{path.name} has no line `test: NODE`"
        found.append(Mutation(path, text.splitlines()[0], match[1]))
    return found


def copy_sources(to: Path) -> None:
    """What git keeps or would keep, as it is in the working tree."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in listed.stdout.split("\0"):
        source, target = ROOT / name, to / name
        if source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
