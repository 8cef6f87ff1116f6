"""A worker that joins a server through its door, from anywhere."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

from .config import Config
from .dialing import ENTRY, Dialed, dial_any
from .errors import DeadlineExceeded, DemosError, InvalidInput, ServerLost
from .fingerprint import describe_arithmetic
from .logs import Logger, warn
from .model import LoadedModel, load
from .registry import Registry
from .worker import Worker

#: Seconds that a lost server is looked for, and between two looks, at first and at most.
PATIENCE, FIRST_PAUSE, LONGEST_PAUSE = 60.0, 0.05, 2.0
_LOG = Logger("worker")


def join(
    name: str,
    config: Config,
    *,
    model: str = "",
    label: str = "",
    family: str = "",
    transport: str = "auto",
    wait: float = 0.0,
) -> None:
    """Works for the server ``name`` until it ends; ``model`` is what to load where that is not what the server says.
    ``family`` tells the server from others of its name; ``transport`` is as of `demos_hpc.connect`.

    A server that is lost is looked for again for a minute, and one that is not there yet for ``wait`` seconds. SIGTERM
    lets the worker leave after the chunk that it computes; a second one ends it at once.

    Raises
    ------
    ServerLost
        Where there is no such server (any more).
    AccessRefused
        Where it does not let us in.
    ModelNotFound, ModelFailed
        Where the model cannot be loaded; the server is told as well.
    InvalidInput
        Where the server names none.
    """
    registry = Registry(config.registry_directory)
    loaded: LoadedModel | None = None
    failure: DemosError | None = None

    def make_model() -> LoadedModel:
        nonlocal loaded, failure
        try:
            loaded = loaded or load(model or dialed.admission.model_path, config)
        except DemosError as error:
            failure = error
            raise
        return loaded

    options = {"family": family, "label": label, "transport": transport}
    dialed = find_again(name, registry, config, wait, **options)
    while True:
        admission = dialed.admission
        if not model and not admission.model_path:
            dialed.port.close()
            raise InvalidInput(
                f"the workers of server {admission.name!r} are a program: join it by `demos-hpc worker --join"
                f" {admission.name} --exec ./program`"
            )
        _LOG.info("joined", server=admission.name, worker=admission.number, by=dialed.link.transport, label=label)
        worker = Worker(f"worker {admission.number}", dialed.port, dialed.link, config.heartbeat, dialed.ascent, config)
        try:
            worker.offer(make_model, describe_arithmetic())
            if failure is not None:
                dialed.port.flush(LONGEST_PAUSE)
                raise failure
            with _leaving(worker):
                worker.serve()
            return
        except ServerLost as error:
            if worker.is_leaving:
                return
            warn(f"{error}; looking for it")
        finally:
            dialed.port.close()
        dialed = find_again(name, registry, config, **options)


@contextlib.contextmanager
def _leaving(worker: Worker) -> Iterator[None]:
    """Signals that let the worker leave, inside."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def take(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        worker.leave()

    before = signal.signal(signal.SIGTERM, take)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def find_again(name: str, registry: Registry, config: Config, within: float | None = None, /, **options: str) -> Dialed:
    """The server, once somebody has started it; `ServerLost` where nobody has ``within`` so many seconds, or 60."""
    end, pause = time.monotonic() + (PATIENCE if within is None else within), FIRST_PAUSE
    while True:
        try:
            return dial_any(name, registry, config, "worker", seconds=ENTRY, **options)
        except (ServerLost, DeadlineExceeded):
            if time.monotonic() >= end:
                raise
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)
