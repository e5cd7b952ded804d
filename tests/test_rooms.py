"""Imports go one way: pipeline -> workers -> protocol, and protocol is pure.

Inside the pipeline the two ends do not know each other, and what they stand on knows neither.
"""

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OUTSIDE = {"tests", "benchmarks"}
IMPURE = {
    "asyncio", "concurrent", "datetime", "fcntl", "io", "mmap", "multiprocessing", "os", "pathlib",
    "psutil", "random", "ruamel", "select", "selectors", "shutil", "signal", "socket", "subprocess",
    "tempfile", "threading", "time", "yaml", "zmq",
}  # fmt: skip
FORBIDDEN = {
    "protocol": OUTSIDE | {"workers", "pipeline"} | IMPURE,
    "workers": OUTSIDE | {"pipeline"},
    "pipeline": OUTSIDE,
}
MAY_KNOW = {
    "config": set(),
    "records": set(),
    "injection": set(),
    "guests": {"injection", "records"},
    "leftovers": {"guests", "records"},
    "streams": {"config"},
    "source": {"config", "guests", "leftovers", "records", "streams"},
    "destination": {"config", "guests", "leftovers", "records", "streams"},
    "monitor": {"config", "destination", "guests", "source"},
    "reports": {"config"},
    "laboratory": {"config", "records", "reports"},
    "batch": {"config"},
    "cluster": {"batch", "config", "leftovers", "monitor", "records"},
    "shell": {
        *("batch", "cluster"),
        *("config", "destination", "guests", "laboratory", "leftovers", "monitor", "records"),
        *("reports", "source"),
    },
}
"""Of each folder of the pipeline: which others it may import."""
BESIDE = OUTSIDE | {f"pipeline.{folder}" for folder in MAY_KNOW}
FORBIDDEN |= {
    f"pipeline/{folder}": BESIDE - {f"pipeline.{other}" for other in {folder, *known}}
    for folder, known in MAY_KNOW.items()
}
IMPORTERS = {"__import__", "import_module", "find_spec", "resolve_name", "run_module"}


def modules_named(tree: ast.AST) -> Iterator[str]:
    """Every module that the code imports, at any depth, by statement or by call."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=str(module), names=names, level=0):
                yield from (f"{module}.{alias.name}" for alias in names)
            case ast.Call(args=[ast.Constant(value=str(module)), *_]) if _callee(node) in IMPORTERS:
                yield module


def _callee(call: ast.Call) -> str:
    match call.func:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
    return ""


def _lies_in(name: str, packages: set[str]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def faults(room: str, source: str) -> list[str]:
    """What `source` imports, or opens, and may not as a module of `room`."""
    tree = ast.parse(source)
    found = [name for name in modules_named(tree) if _lies_in(name, FORBIDDEN.get(room, BESIDE))]
    calls = [_callee(node) for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return found + (["open"] if room == "protocol" and "open" in calls else [])


@pytest.mark.parametrize("room", FORBIDDEN)
def test_imports_go_one_way(room: str) -> None:
    """A driver pulled into the protocol, or a worker that knows its coordinator."""
    paths = sorted((ROOT / room).rglob("*.py"))
    assert paths
    found = {str(path.relative_to(ROOT)): faults(room, path.read_text()) for path in paths}
    assert {path: names for path, names in found.items() if names} == {}


def test_the_folders_of_the_pipeline_have_an_order() -> None:
    """Two folders that need each other; one that nobody says anything about."""
    assert set(TopologicalSorter(MAY_KNOW).static_order()) == set(MAY_KNOW)
    assert {path.parent.name for path in ROOT.glob("pipeline/*/__init__.py")} == set(MAY_KNOW)


def test_what_stands_beside_the_folders_knows_none() -> None:
    """A cycle between a folder and what it stands on."""
    paths = set(ROOT.glob("pipeline/*.py")) - {ROOT / "pipeline/__main__.py"}
    assert not [found for path in paths for found in faults("beside", path.read_text())]


@pytest.mark.parametrize(
    ("room", "source", "found"),
    [
        ("protocol", "import workers.pool", ["workers.pool"]),
        ("protocol", "import struct, zmq.asyncio as z", ["zmq.asyncio"]),
        ("protocol", "def f():\n    from time import monotonic", ["time.monotonic"]),
        ("protocol", "if TYPE_CHECKING:\n    from pipeline import x", ["pipeline.x"]),
        ("protocol", "open('a')", ["open"]),
        ("workers", "import importlib\nimportlib.import_module('pipeline.run')", ["pipeline.run"]),
        ("workers", "__import__('pipeline')", ["pipeline"]),
        ("pipeline", "from tests.protocol import samples", ["tests.protocol.samples"]),
        ("pipeline/source", "import pipeline.destination.engine", ["pipeline.destination.engine"]),
        ("pipeline/guests", "from pipeline import shell", ["pipeline.shell"]),
        ("pipeline/source", "from pipeline.logs import x", []),
        ("protocol", "import struct\nfrom protocol.limits import x\nfrom . import y", []),
        ("workers", "import os, zmq\nfrom protocol import frames\nopen('a')", []),
        ("pipeline", "import workers.pool, protocol.frames, timeit", []),
    ],
)
def test_the_checker_finds_a_planted_import(room: str, source: str, found: list[str]) -> None:
    """A checker that is blind, or that cries wolf."""
    assert faults(room, source) == found
