"""Key files: made, and read only where nobody else can. In the format of pyzmq's certificates.

Each refusal is one line that names the file and what would do.
"""

import os
from pathlib import Path

import zmq
from zmq.auth import create_certificates, load_certificate
from zmq.utils import z85

from protocol.errors import ConfigError
from workers.keys import KeyPair

NAME = "pageferry"
PUBLIC, SECRET = f"{NAME}.key", f"{NAME}.key_secret"
OTHERS = 0o077
"""The modes by which group or others may do anything."""
Z85_CHARACTERS = 40
KEY_FILE_BYTES = 4096
"""What keygen makes has 500."""


def make_keys(folder: Path) -> bytes:
    """Make a pair in `folder`; its public key. ConfigError where there is one already."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        _check_private(folder, 0o700)
        for name in (PUBLIC, SECRET):
            if os.path.lexists(folder / name):
                raise ConfigError(f"{folder / name} is there already: keys are not overwritten")
        return _make(folder)
    except OSError as error:
        raise ConfigError(f"no keys in {folder}: {error.strerror}") from None


def _make(folder: Path) -> bytes:
    before = os.umask(OTHERS)
    try:
        public, secret = map(Path, create_certificates(folder, NAME))
    finally:
        os.umask(before)
    public.chmod(0o644)
    secret.chmod(0o600)
    return read_pair(folder).public


def read_pair(folder: Path) -> KeyPair:
    """The pair in `folder`; ConfigError where it is none, or others may look at it."""
    path = folder / SECRET
    for place, mode in ((folder, 0o700), (path, 0o600)):
        if not _is_there(place):
            raise ConfigError(
                f"security.keys: there is no {place}: `pageferry keygen {folder}` makes a pair"
            )
        _check_private(place, mode)
    public, secret = _load(path, "security.keys")
    if secret is None or not _is_key(secret) or zmq.curve_public(secret) != public:
        raise ConfigError(f"security.keys: {path} holds no pair of keys")
    return KeyPair(public, secret)


def _is_there(path: Path) -> bool:
    """Whether it is seen; of a name that cannot be, or in a closed folder, nothing is."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def _check_private(path: Path, wanted: int) -> None:
    mode = path.stat().st_mode & 0o777
    if mode & OTHERS:
        raise ConfigError(
            f"security.keys: {path} has mode {mode:04o}, others may look at the secret key:"
            f" chmod {wanted:o} {path}"
        )


def read_peer(text: str) -> bytes:
    """The public key in the file `text`, or that `text` is; ConfigError where it is neither."""
    path = Path(text)
    if not _is_there(path) or not path.is_file():
        if _is_key(text.encode(errors="replace")):
            return text.encode()
        raise ConfigError(
            f"security.peers: {text!r} is neither a file nor a key of {Z85_CHARACTERS} characters"
        )
    public, secret = _load(path, "security.peers")
    if secret is not None:
        raise ConfigError(
            f"security.peers: {path} holds a secret key, which belongs to its own machine:"
            f" expected {PUBLIC}"
        )
    return public


def _load(path: Path, key: str) -> tuple[bytes, bytes | None]:
    try:
        if not path.is_file() or path.stat().st_size > KEY_FILE_BYTES:
            raise ValueError
        public, secret = load_certificate(path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "expected a file that keygen made"
        raise ConfigError(f"{key}: {path} cannot be read: {reason}") from None
    if not _is_key(public):
        raise ConfigError(f"{key}: {path} holds no public key of {Z85_CHARACTERS} characters")
    return public, secret


def _is_key(text: bytes) -> bool:
    return len(text) == Z85_CHARACTERS and all(letter in z85.Z85CHARS for letter in text)
