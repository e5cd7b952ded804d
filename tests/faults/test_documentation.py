"""Each row of docs/faults.md is a test that there is."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROWS = re.findall(r"`(tests/\S+\.py)::(\w+)`", (ROOT / "docs/faults.md").read_text())


@pytest.mark.parametrize(("path", "name"), sorted(set(ROWS)))
def test_a_row_names_a_test(path: str, name: str) -> None:
    """A promise that nothing holds, because its test was renamed or taken out."""
    tree = ast.parse((ROOT / path).read_text())
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_there_are_rows() -> None:
    """A pattern that finds nothing, and so proves nothing."""
    assert len(ROWS) > 20
