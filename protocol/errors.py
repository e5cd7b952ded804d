"""One tree of errors; the class says who did it, the message says what, where and why.

They cross processes by pickle, so each is built from its message alone.
"""


class MigrationError(Exception):
    """A migration, or the preparation of one, did not work."""


class ConfigError(MigrationError):
    """The user's file, option or environment is wrong; nothing has been started."""


class MigrationRefused(MigrationError):
    """None may begin, or be changed like that, now; nothing has changed."""


class LocalProtocolError(MigrationError):
    """This end was about to do what the protocol forbids: our bug."""


class RemoteProtocolError(MigrationError):
    """The peer sent what is malformed, out of order, or over a limit."""


class FrameDamaged(RemoteProtocolError):
    """A frame whose digest does not match: the bytes changed on the way."""


class IntegrityError(MigrationError):
    """The memory at the destination is not what the source holds."""


class WorkerError(MigrationError):
    """A worker process failed or died."""


class GuestError(MigrationError):
    """The guest vanished, or did not do what it was asked."""


class NoSuchGuest(GuestError):
    """There is no guest where one was named, or one that cannot do what it was named for."""


class PeerLost(MigrationError):
    """The other end does not answer any more, or said that it failed."""


class NotStartedThere(MigrationError):
    """The destination says for certain that the guest does not run there, and will not."""


class Cancelled(MigrationError):
    """Somebody asked for the end of this migration; not a failure."""


class NotConverging(MigrationError):
    """The guest cannot be switched over within the downtime limit."""
