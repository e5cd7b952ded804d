"""The destination as a command: waits for a guest, keeps it, tells what happened."""

from pipeline.config.model import Config
from pipeline.destination.incoming import Incoming
from pipeline.progress import Observer
from pipeline.result import Result
from pipeline.signals import cancelled_by_signals
from protocol.uri import Uri
from workers.fork_server import warm_up


def incoming(config: Config, uri: Uri, stay: float | None, observer: Observer) -> Result:
    """Take one guest in at `uri`, and keep it for `stay` seconds once it is here.

    None keeps a synthetic guest until it has checked itself. ConfigError for the
    user's mistakes; whatever else goes wrong is in the result.
    """
    arrival = Incoming(config, observer)
    arrival.listen(uri)
    with cancelled_by_signals(arrival.cancel.set):
        warm_up()
        try:
            return arrival.receive(stay)
        finally:
            arrival.close()
