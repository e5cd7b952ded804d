"""The time of day in which attempts may begin. Pure."""

from datetime import UTC, datetime, time

from pipeline.batch.plan import Window


def is_open(window: Window | None, now_s: float) -> bool:
    """Whether it is, `now_s` seconds since the epoch; one that closes before it opens spans
    midnight."""
    if window is None:
        return True
    now = datetime.fromtimestamp(now_s, UTC).time()
    opens, closes = time.fromisoformat(window.opens), time.fromisoformat(window.closes)
    return opens <= now < closes if opens <= closes else now >= opens or now < closes
