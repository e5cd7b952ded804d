"""A clock that stands still until a test moves it."""

import pytest

MS = 1_000_000


class Clock:
    """Monotonic ns, for a module that imports `monotonic_ns`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, module: str) -> None:
        self.now_ns = 10**15
        monkeypatch.setattr(f"{module}.monotonic_ns", lambda: self.now_ns)

    def forward(self, ms: float) -> None:
        """Let time pass."""
        self.now_ns += int(ms * MS)
