"""Puts old mistakes back into a copy of the code, one at a time: a test must notice each.

    python -m tests.mutations.run [--only NAME]

The named tests must pass as the code is, and fail once it is broken; one that hangs has
noticed, too.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from tests.mutations.patches import Mutation, copy_sources, mutations

AT_ONCE = 2
"""Most of the time of these tests is waiting."""
DEADLINE_S = 20.0
"""For one test, which takes 1 to 3 s as the code is."""
PASSED, FAILED = 0, 1
"""What pytest answers; anything else means that it did not come to the test."""
CAUGHT = ("fails", "hangs")


@contextmanager
def copied_sources() -> Iterator[Path]:
    """A copy of the working tree to break."""
    with tempfile.TemporaryDirectory(prefix="mutant-", ignore_cleanup_errors=True) as folder:
        copy_sources(Path(folder))
        yield Path(folder)


def run_tests(tree: Path, nodes: list[str], deadline_s: float) -> tuple[int | None, str]:
    """Run the tests `nodes` of the sources in `tree`: pytest's answer, and what it printed.

    None when they take longer than `deadline_s`; nothing of them is left then.
    """
    options = ["-q", "-x", "-p", "no:cacheprovider"]
    temporary = tree / "tmp"  # what a killed test leaves goes with the tree
    temporary.mkdir()
    ours = {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1", "TMPDIR": str(temporary)}
    with subprocess.Popen(
        [sys.executable, "-m", "pytest", *options, *nodes],
        cwd=tree,
        env={**os.environ, **ours},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            words = process.communicate(timeout=deadline_s)[0]
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return None, ""
        return process.returncode, words


def verdict(mutation: Mutation) -> str:
    """What the named test says of the code with this mutation."""
    with copied_sources() as tree:
        reason = mutation.apply(tree)
        if reason is not None:
            return f"DOES NOT APPLY: {reason}"
        code, words = run_tests(tree, [mutation.test], DEADLINE_S)
    known = {None: "hangs", FAILED: "fails", PASSED: "SURVIVES"}
    return known.get(code, f"pytest answers {code}: {words}")


def is_sound(wanted: list[Mutation]) -> bool:
    """Whether the named tests pass as the code is; what they say where they do not."""
    nodes = sorted({mutation.test for mutation in wanted})
    with copied_sources() as tree:
        code, words = run_tests(tree, nodes, DEADLINE_S * len(nodes))
    if code != PASSED:
        say(f"the tests do not pass on the code as it is:\n{words}")
    return code == PASSED


def say(line: str) -> None:
    """One line for the person who waits."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def all_caught(wanted: list[Mutation], judge: Callable[[Mutation], str]) -> bool:
    """Judge the mutations, a few at once, and print a table of what became of them."""
    width = max(len(mutation.name) for mutation in wanted)
    with ThreadPoolExecutor(AT_ONCE) as executor:
        verdicts = []
        for mutation, found in zip(wanted, executor.map(judge, wanted), strict=True):
            say(f"{mutation.name:{width}}  {found:6}  {mutation.breaks}")
            verdicts.append(found)
    caught = sum(found in CAUGHT for found in verdicts)
    say(f"{caught} of {len(wanted)} mutations caught")
    return caught == len(wanted)


def main(arguments: list[str]) -> int:
    """0 when every mutation that was asked for is caught."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutations.run")
    names = [mutation.name for mutation in mutations()]
    parser.add_argument("--only", choices=names, metavar="NAME", help=", ".join(names))
    only = parser.parse_args(arguments).only
    wanted = [mutation for mutation in mutations() if only in (None, mutation.name)]
    return 0 if is_sound(wanted) and all_caught(wanted, verdict) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
