"""Imports go one way: pipeline -> workers -> protocol, and protocol is pure.

Inside the pipeline the two ends do not know each other, and what they stand on knows neither.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OUTSIDE = {"tests", "benchmarks"}
DRIVERS = {"pipeline.source", "pipeline.destination", "pipeline.shell"}
IMPURE = {
    "asyncio", "concurrent", "datetime", "fcntl", "io", "mmap", "multiprocessing", "os", "pathlib",
    "psutil", "random", "ruamel", "select", "selectors", "shutil", "signal", "socket", "subprocess",
    "tempfile", "threading", "time", "yaml", "zmq",
}  # fmt: skip
FORBIDDEN = {
    "protocol": OUTSIDE | {"workers", "pipeline"} | IMPURE,
    "workers": OUTSIDE | {"pipeline"},
    "pipeline": OUTSIDE,
    "pipeline/config": OUTSIDE | DRIVERS | {"pipeline.guests", "pipeline.tracking"},
    "pipeline/guests": OUTSIDE | DRIVERS,
    "pipeline/tracking": OUTSIDE | DRIVERS,
    "pipeline/streams": OUTSIDE | {"pipeline.source", "pipeline.destination", "pipeline.shell.cli"},
    "pipeline/source": OUTSIDE | {"pipeline.destination", "pipeline.shell.cli"},
    "pipeline/destination": OUTSIDE | {"pipeline.source", "pipeline.shell.cli"},
}
IMPORTERS = {"__import__", "import_module", "find_spec", "resolve_name", "run_module"}


def modules_named(tree: ast.AST) -> Iterator[str]:
    """Every module that the code imports, at any depth, by statement or by call."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=str(module), level=0):
                yield module
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
    found = [name for name in modules_named(tree) if _lies_in(name, FORBIDDEN[room])]
    calls = [_callee(node) for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return found + (["open"] if room == "protocol" and "open" in calls else [])


@pytest.mark.parametrize("room", FORBIDDEN)
def test_imports_go_one_way(room: str) -> None:
    """Catches: a driver pulled into the protocol, or a worker that knows its coordinator."""
    paths = sorted((ROOT / room).rglob("*.py"))
    assert paths
    found = {str(path.relative_to(ROOT)): faults(room, path.read_text()) for path in paths}
    assert {path: names for path, names in found.items() if names} == {}


@pytest.mark.parametrize(
    ("room", "source", "found"),
    [
        ("protocol", "import workers.pool", ["workers.pool"]),
        ("protocol", "import struct, zmq.asyncio as z", ["zmq.asyncio"]),
        ("protocol", "def f():\n    from time import monotonic", ["time"]),
        ("protocol", "if TYPE_CHECKING:\n    from pipeline import x", ["pipeline"]),
        ("protocol", "open('a')", ["open"]),
        ("workers", "import importlib\nimportlib.import_module('pipeline.run')", ["pipeline.run"]),
        ("workers", "__import__('pipeline')", ["pipeline"]),
        ("pipeline", "from tests.protocol import samples", ["tests.protocol"]),
        ("pipeline/source", "import pipeline.destination.engine", ["pipeline.destination.engine"]),
        ("pipeline/guests", "from pipeline.shell import cli", ["pipeline.shell"]),
        ("pipeline/source", "from pipeline.shell.logs import x", []),
        ("protocol", "import struct\nfrom protocol.limits import x\nfrom . import y", []),
        ("workers", "import os, zmq\nfrom protocol import frames\nopen('a')", []),
        ("pipeline", "import workers.pool, protocol.frames, timeit", []),
    ],
)
def test_the_checker_finds_a_planted_import(room: str, source: str, found: list[str]) -> None:
    """Catches: a checker that is blind, or that cries wolf."""
    assert faults(room, source) == found
