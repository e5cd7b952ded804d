"""`pageferry check`: what each end would refuse here; nothing is opened, asked or started."""

from pipeline.config.environment import check_environment
from pipeline.config.model import Config
from protocol.errors import ConfigError
from protocol.session import Role
from protocol.uri import Uri, parse_uri

COMMANDS: dict[Role, str] = {"source": "migrate", "destination": "incoming"}
_ANYWHERE = Uri("tcp", host="0.0.0.0")
"""Where `--uri` may lead to, if the file does not say; keys are looked at as for that."""


def refusals(config: Config) -> dict[Role, str]:
    """Of each end that could not begin here with `config`: why."""
    found: dict[Role, str] = {}
    for role in COMMANDS:
        try:
            check_environment(config, source=role == "source", destination=role == "destination")
            _check_keys(config, role)
        except ConfigError as error:
            found[role] = str(error)
    return found


def _check_keys(config: Config, role: Role) -> None:
    security = config.security
    uri = parse_uri(config.uri) if config.uri is not None else _ANYWHERE
    if uri.scheme != "tcp" or (config.uri is None and not (security.keys or security.peers)):
        return
    from pipeline.config.links import client_keys, server_keys

    (client_keys if role == "source" else server_keys)(security, uri)


def words(found: dict[Role, str]) -> list[str]:
    """What to say of these refusals: one line where both ends have the same reason."""
    reasons = set(found.values())
    if len(found) == len(COMMANDS) and len(reasons) == 1:
        return [*reasons]
    return [f"{COMMANDS[role]} would refuse it here: {reason}" for role, reason in found.items()]
