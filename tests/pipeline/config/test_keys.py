"""Key files: made for their owner alone, and not read where others can."""

import os
from pathlib import Path

import pytest

from pipeline.config.keys import make_keys, read_pair, read_peer
from protocol.errors import ConfigError


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


@pytest.mark.parametrize("umask", [0, 0o077])
def test_modes(tmp_path: Path, umask: int) -> None:
    """A secret key that others read; a public one that they do not."""
    folder, before = tmp_path / "deep" / "keys", os.umask(umask)
    try:
        public = make_keys(folder)
        assert os.umask(umask) == umask
    finally:
        os.umask(before)
    secret = folder / "pageferry.key_secret"
    assert [mode(folder), mode(secret), mode(folder / "pageferry.key")] == [0o700, 0o600, 0o644]
    assert read_pair(folder).public == public == read_peer(str(folder / "pageferry.key"))
    assert read_peer(public.decode()) == public


@pytest.mark.parametrize("name", ["pageferry.key", "pageferry.key_secret"])
def test_nothing_is_overwritten(tmp_path: Path, name: str) -> None:
    """A key that others know, replaced by a slip."""
    folder = tmp_path / "keys"
    make_keys(folder)
    kept = {path.name: path.read_bytes() for path in folder.iterdir() if path.name == name}
    for path in folder.iterdir():
        if path.name != name:
            path.unlink()
    with pytest.raises(ConfigError, match=f"{name} is there already"):
        make_keys(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == kept


@pytest.mark.parametrize(
    ("name", "loose"), [(".", 0o750), (".", 0o701), ("pageferry.key_secret", 0o640)]
)
def test_loose_modes_are_refused(tmp_path: Path, name: str, loose: int) -> None:
    """A secret that half of the machine knows, used as if it were one."""
    make_keys(tmp_path / "keys")
    (tmp_path / "keys" / name).chmod(loose)
    with pytest.raises(ConfigError, match=f"mode {loose:04o}.*chmod"):
        read_pair(tmp_path / "keys")


def test_a_loose_folder_gets_no_keys(tmp_path: Path) -> None:
    """A secret key in a folder in which others may replace it."""
    tmp_path.chmod(0o755)
    with pytest.raises(ConfigError, match="chmod 700"):
        make_keys(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "cannot be read"),
        ('public-key = "short"', "no public key"),
    ],
)
def test_files_that_are_none(tmp_path: Path, text: str, words: str) -> None:
    """A traceback of the messaging library."""
    path = tmp_path / "peer.key"
    path.write_text(text)
    with pytest.raises(ConfigError, match=f"security.peers: {path}.*{words}"):
        read_peer(str(path))


def test_pairs_that_are_none(tmp_path: Path) -> None:
    """Keys that do not belong together: every connection is refused, and nobody knows why."""
    make_keys(tmp_path / "a")
    make_keys(tmp_path / "b")
    secret = tmp_path / "a" / "pageferry.key_secret"
    other = (tmp_path / "b" / "pageferry.key").read_text().splitlines()[-1]
    lines = [line for line in secret.read_text().splitlines() if "public-key" not in line]
    secret.write_text("\n".join([other, *lines]))
    with pytest.raises(ConfigError, match="no pair of keys"):
        read_pair(tmp_path / "a")
    with pytest.raises(ConfigError, match="pageferry keygen"):
        read_pair(tmp_path / "none")


def test_peers_that_are_none(tmp_path: Path) -> None:
    """A secret key that was carried to another machine; a typing error that lets nobody in."""
    make_keys(tmp_path / "a")
    with pytest.raises(ConfigError, match="holds a secret key"):
        read_peer(str(tmp_path / "a" / "pageferry.key_secret"))
    for text in ("nowhere.key", "a" * 41, "\\" * 40, "ä" * 40):
        with pytest.raises(ConfigError, match="neither a file nor a key"):
            read_peer(text)
