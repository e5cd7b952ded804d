"""A page in a real browser: what it says on the console, and what it shows."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

CHROMIUM = shutil.which("chromium")
needs_a_browser = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")


def opened(page: Path, home: Path) -> str:
    """What the page `page` has become there; a figure has a caption, and nothing is asked for."""
    text = page.read_text()
    assert not re.search(r"<script|https?://(?!www\.w3\.org)", text)
    assert text.count("<figure>") == text.count("<figcaption>") >= 2
    options = ("--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr")
    seen = subprocess.run(
        [str(CHROMIUM), *options, f"--user-data-dir={home}", "--dump-dom", page.as_uri()],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "HOME": str(home)},
    )
    assert "CONSOLE" not in seen.stderr
    return seen.stdout
