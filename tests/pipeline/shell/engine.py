"""An engine that only notes how it was called, and what a command line is told."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import structlog

from pipeline.config.model import Config
from pipeline.progress import Observer, Progress
from pipeline.result import Result
from pipeline.shell.cli import run_command
from protocol.status import Status
from protocol.uri import Uri

GOOD = Result(status=Status.COMPLETED, total_time=1234, verified=True, self_check="clean")


class Engine:
    """Stands in for the engine: notes how it was called, answers `end`."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.end: Result | BaseException = GOOD

    def serve_source(
        self,
        config: Config,
        uri: Uri | None,
        qmp: Path | None,
        observer: Observer,
        *,
        on_each: Callable[[Result], None],
    ) -> Result:
        """As pipeline.monitor.source's."""
        return self._answer(observer, "migrate", config, uri, qmp)

    def serve_destination(
        self,
        config: Config,
        uri: Uri | None,
        qmp: Path | None,
        stay: float | None,
        observer: Observer,
    ) -> Result:
        """As pipeline.monitor.destination's."""
        return self._answer(observer, "incoming", config, uri, stay)

    def run(self, config: Config, qmp: Path | None, observer: Observer) -> Result:
        """As pipeline.shell.local's."""
        return self._answer(observer, "run", config, qmp)

    def _answer(self, observer: Observer, *call: object) -> Result:
        self.calls.append(call)
        observer(Progress(Status.ACTIVE, 0.5, 1, 10))
        structlog.get_logger().info("a word", about="something")
        if isinstance(self.end, BaseException):
            raise self.end
        return self.end


def complaint(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 2) -> str:
    """The one line that `arguments` get."""
    assert run_command(list(arguments)) == code
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1
    assert shown.err.startswith("pageferry: ")
    return shown.err.removeprefix("pageferry: ").rstrip()
