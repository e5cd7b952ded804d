"""The mutations are about the code as it is now, not about what it was once."""

from pathlib import Path

import pytest

from tests.mutations.patches import ROOT, Mutation, copy_sources, mutations

ALL = pytest.mark.parametrize("mutation", mutations(), ids=lambda mutation: mutation.name)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tree = tmp_path_factory.mktemp("sources")
    copy_sources(tree)
    return tree


def test_each_of_the_seven_mistakes_has_one() -> None:
    """A mistake whose last patch was removed because it did not apply any more."""
    assert {mutation.name[0] for mutation in mutations()} >= set("1234567")


@ALL
def test_it_applies(mutation: Mutation, sources: Path) -> None:
    """A patch of code that has moved on; two of one file do not disturb each other."""
    touched = [line[6:] for line in mutation.path.read_text().splitlines() if line[:4] == "+++ "]
    before = {name: (sources / name).read_text() for name in touched}
    assert mutation.apply(sources) is None
    for name, text in before.items():
        assert (sources / name).read_text() != text
        (sources / name).write_text(text)
        compile(text, name, "exec")


@ALL
def test_it_names_a_test(mutation: Mutation) -> None:
    """A test that was renamed, so that pytest's complaint would pass for a failure."""
    path, _, name = mutation.test.partition("::")
    assert f"def {name.partition('[')[0]}(" in (ROOT / path).read_text()
