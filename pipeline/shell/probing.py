"""`pageferry check --probe`: what is seen of a guest, in lines that are YAML, too."""

import os
from dataclasses import replace

from pipeline.config.model import Config
from pipeline.config.units import format_bytes
from pipeline.destination.arriving_guest import check_guest
from pipeline.source.probe import Probe, probe
from protocol.errors import ConfigError, GuestError


def look(config: Config) -> Probe:
    """At the guest of `config`, and at one that waits for it, where its socket is here."""
    found = probe(config)
    there = config.destination.socket or config.destination.qmp
    try:
        if there is not None and there.is_socket():
            check_guest(config)
    except (ConfigError, GuestError, OSError) as error:
        return replace(found, in_the_way=[*found.in_the_way, str(error)])
    return found


def report(found: Probe, config: Config) -> str:
    """A document of its own behind the configuration."""
    lines = ["---", f"can-move: {str(not found.in_the_way).lower()}"]
    lines += ["in-the-way:"] * bool(found.in_the_way)
    lines += [f"- {reason}" for reason in found.in_the_way]
    if found.run_state is not None:
        lines += _facts(found, config)
    return "".join(f"{line}\n" for line in lines)


def _facts(found: Probe, config: Config) -> list[str]:
    facts = [
        f"run-state: {found.run_state}",
        f"memory: {format_bytes(found.memory_bytes)}",
        f"tracker: {found.tracker}",
        f"tracker-reason: {found.tracker_reason}",
        f"dirty-rate: {format_bytes(found.dirty_rate)}  # a second, by a sample of its pages",
    ]
    pass_ms = found.hash_pass_ms / len(os.sched_getaffinity(0))
    limit_ms = config.parameters.downtime_limit
    if config.verify == "full":
        facts.append(f"hash-pass: {pass_ms:.0f} ms  # while it stands still: verify is full")
        if pass_ms >= limit_ms:
            facts.append(f"# that alone is more than the downtime-limit of {limit_ms} ms")
    return facts
