"""What became of an attempt, from what its two ends left. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pipeline.result import Result
from protocol.status import Status

Kind = Literal["arrived", "failed", "unknown", "lost", "cancelled"]


@dataclass(frozen=True)
class Outcome:
    """`failed` and `cancelled`: the guest is where it was; `lost`: it is dead; `unknown`: nobody
    knows yet which of both ends has it, by `session` that can be settled."""

    kind: Kind
    reason: str = ""
    session: str | None = None


def outcome_of(source: Result | None, words: str, there: Result | None) -> Outcome:
    """Of an attempt whose source left `source`; what that does not say nobody knows. `words`: its
    last ones; `there`: what the destination left."""
    if source is None:
        return Outcome("unknown", words)
    reason = source.error_desc or words
    match source.guest_alive:
        case "destination":
            return Outcome("arrived", what_is_wrong(there))
        case "none":
            return Outcome("lost", reason)
        case "source":
            return _stayed(source, reason, there)
    if source.status is Status.COMPLETED:  # of memory that runs nowhere
        return Outcome("arrived", what_is_wrong(there))
    return Outcome("unknown", reason, source.session)


def _stayed(source: Result, reason: str, there: Result | None) -> Outcome:
    """Of a guest that is where it was; what its destination says may say more."""
    told = there.error_desc if there is not None else None
    kind: Kind = "cancelled" if source.status is Status.CANCELLED else "failed"
    return Outcome(kind, told if told and "the source" not in told else reason)


def what_is_wrong(there: Result | None) -> str:
    """Of a guest that has arrived, as its destination says; nothing where it does not."""
    if there is None or there.self_check in (None, "clean"):
        return ""
    return str(there.self_check)


def may_retry(reason: str, tries: int, most: int, not_on: Sequence[str]) -> bool:
    """Whether one that failed for `reason`, at its try number `tries`, is tried again."""
    return tries <= most and not any(words in reason for words in not_on)


def backoff_s(tries: int, first_s: float, factor: float) -> float:
    """How long it rests after its try number `tries`, from 1 on."""
    return first_s * factor ** (tries - 1)
