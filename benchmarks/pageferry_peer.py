"""pageferry's side: `pageferry run` of a quiet file guest, as a user would start it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.running import (
    RUN_SECONDS,
    Measured,
    RunError,
    Settings,
    child,
    compare,
    last_line,
)

CODECS = ("none", "zlib", "zstd", "lz4", "auto")
REPOSITORY = Path(__file__).resolve().parent.parent


def migrate(codec: str, settings: Settings) -> Measured:
    """One migration into a fresh file; RunError where it fails or memory differs."""
    arrived = settings.folder / "pageferry-destination"
    try:
        answer = run(configuration(codec, settings, arrived), settings.folder)
        if settings.compare:
            compare(settings.image, arrived)
    finally:
        arrived.unlink(missing_ok=True)
    milliseconds = answer["total-time"] - answer["setup-time"]
    return Measured(milliseconds / 1000, answer["ram"]["transferred"])


def configuration(codec: str, settings: Settings, arrived: Path) -> dict[str, Any]:
    """The same level and counts as the peer is given."""
    return {
        "guest": {"kind": "file", "path": str(settings.image)},
        "destination": {"path": str(arrived)},
        "codec": codec,
        "verify": "frames",
        "parameters": {
            "compress-level": settings.level,
            "compress-threads": settings.threads,
            "decompress-threads": settings.decompress_threads,
        },
    }


def run(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The result of `pageferry run`; RunError where it does not complete."""
    config_path, result, log = (folder / f"pageferry.{end}" for end in ("yaml", "json", "log"))
    config_path.write_text(json.dumps(config))  # JSON is YAML
    command = [sys.executable, "-m", "pipeline", "run", config_path, "--json", result, "--quiet"]
    with child([str(part) for part in command], log, cwd=REPOSITORY) as process:
        try:
            code = process.wait(RUN_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise RunError(f"pageferry did not end within {RUN_SECONDS} s") from error
    if code:
        raise RunError(f"pageferry ended with {code}: {last_line(log)}")
    answer: dict[str, Any] = json.loads(result.read_text())
    return answer
