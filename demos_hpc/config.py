"""All settings, in one frozen dataclass; the only reader of ``DEMOS_*`` in the environment, and of TOML."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_type_hints

from .errors import InvalidInput

PREFIX = "DEMOS_"
#: Where a user's files are unless settings say otherwise, below the user's home.
HOME = ".demos-hpc"
#: What settings of a few words may be.
CHOICES = {
    "bell": ("auto", "udp"),
    "authentication": ("auto", "key", "munge"),
    "tls": ("auto", "on", "off"),
    "upgrade": ("auto", "off"),
    "compression": ("auto", "off"),
    "log_level": ("debug", "info", "warning", "error"),
}
#: Settings that must not be 0.
POSITIVE = (
    "window_bytes", "max_queued_requests", "max_connections", "heartbeat", "upgrade_after", "max_unsent_bytes",
    "stall_timeout", "threads",
)  # fmt: skip


@dataclass(frozen=True)
class Config:
    """Settings of a process, with the defaults that hold where nobody said otherwise.

    Each is set by ``DEMOS_<NAME>`` in the environment, or by its name in the TOML file that ``DEMOS_CONFIG``
    names; the environment wins.
    """

    #: Seconds until ranks that have not called in are named and the launch is given up.
    roll_call_timeout: float = 60.0
    #: Seconds that a call may take unless it says otherwise.
    timeout: float = 3600.0
    #: Largest request that a dispatcher takes, bytes of payload.
    max_request_bytes: int = 1 << 40
    #: Requests that one client may have waiting in the dispatcher; more are answered with Busy.
    max_queued_requests: int = 100_000
    #: Bytes of a large request that a client sends ahead of the answers.
    window_bytes: int = 16 << 20
    #: Seconds of work that a chunk should hold (more where many workers share one dispatcher).
    chunk_seconds: float = 0.02
    #: Seconds after which a worker inside one chunk is given up; 0 = never.
    chunk_timeout: float = 0.0
    #: Seconds that a waiting process yields its core before it sleeps.
    yield_seconds: float = 200e-6
    #: How processes wake one another: "auto", or "udp" to do as if each stood on a host of its own.
    bell: str = "auto"
    #: The directory where servers and clients find one another; by default below the user's home.
    registry: str = ""
    #: The file with the key that opens the door; by default below the user's home, and made when it is missing.
    key_file: str = ""
    #: How peers prove who they are: "key", "munge", or "auto": by MUNGE where it runs.
    authentication: str = "auto"
    #: Who may do what, a TOML file; without one, the server's own user everything and nobody else anything.
    access_file: str = ""
    #: Where it is written down who did what; empty for nowhere.
    audit_file: str = ""
    #: The address that a server's door listens on, and what clients dial.
    host: str = "127.0.0.1"
    #: Its TCP port; 0 for any that is free.
    port: int = 0
    #: Whether the door speaks TLS: "on", "off", or "auto": except on the loopback.
    tls: str = "auto"
    #: Connections that a door has at a time.
    max_connections: int = 4096
    #: Seconds between signs of life; a peer that is silent for twice as long is given up.
    heartbeat: float = 5.0
    #: Whether busy links through the door go on through shared memory on one host: "auto" or "off".
    upgrade: str = "auto"
    #: Frames after which a link is busy.
    upgrade_after: int = 64
    #: Whether large frames are compressed: "off", or "auto": where the network is slower than that.
    compression: str = "auto"
    #: Answers that a client leaves untaken, bytes, before nothing more is computed for it.
    max_unsent_bytes: int = 64 << 20
    #: Seconds after which a client that takes nothing is given up.
    stall_timeout: float = 60.0
    #: Bytes of answers that are kept, for requests that come again; 0 for none.
    cache_bytes: int = 0
    #: Seconds that requests under way are given when a server is stopped.
    stop_seconds: float = 30.0
    #: What is logged: "debug", "info", "warning" or "error"; and where, empty for standard error. Each process has a
    #: file of its own: ``demos-neutrino.0.log`` for ``demos.log``.
    log_level: str = "warning"
    log_file: str = ""
    #: Where a server writes its counters for Prometheus: a file that ends in .prom, or a directory; empty for nowhere.
    prometheus_file: str = ""
    #: Where servers keep what each user has used of each model, a directory; empty for nowhere.
    usage_directory: str = ""
    #: Directories, between colons, that links in HDF5 files may lead into, beside each file's own.
    data_directories: str = ""
    #: Where uploaded data are kept, on a file system that client's and server's hosts share; by default below the home.
    spool: str = ""
    #: Bytes of datasets that the workers of one host hold in memory; 0 for half of what is free.
    resident_bytes: int = 0
    #: Threads of each worker that share the rows of a model in C, where it says that it may be called by several.
    threads: int = 1
    #: libdemos, by which models in C are called; by default the one of this installation.
    library: str = ""
    #: A shell script with a site's settings, that batch jobs include; by default in the home, or in /etc/demos-hpc.
    site: str = ""
    #: What the site lets images do, a TOML file (`image_policy`); without one, its defaults.
    image_policy: str = ""
    #: ``sha256:…`` of the image that this process runs in, which `demos-hpc image run` sets; empty outside of images.
    image_digest: str = ""
    #: A directory where ranks leave a mark before MPI_Init, so that one that never comes can be named.
    run_dir: str = ""

    def __post_init__(self) -> None:
        for name, kind in get_type_hints(Config).items():
            value = getattr(self, name)
            if kind in (int, float):  # 1e5 requests, a NumPy number: compiled modules take none but Python's own
                value = _convert(name, kind, value)
                object.__setattr__(self, name, value)
                if not value >= 0:
                    raise InvalidInput(f"setting {name} is {value}; it is a number >= 0")
            if name in POSITIVE and not value:
                raise InvalidInput(f"setting {name} is 0; nothing could ever be sent: give a number > 0")
        if self.port > 65535:
            raise InvalidInput(f"setting port is {self.port}; it is a number from 1 to 65535, or 0 for any")
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                allowed = " or ".join(map(repr, choices))
                raise InvalidInput(f"setting {name} is {getattr(self, name)!r}; it is {allowed}")

    @property
    def registry_directory(self) -> Path:
        return Path(self.registry) if self.registry else Path.home() / HOME / "registry"

    @property
    def spool_directory(self) -> Path:
        return Path(self.spool) if self.spool else Path.home() / HOME / "spool"

    @property
    def key_path(self) -> Path:
        return Path(self.key_file) if self.key_file else Path.home() / HOME / "key"

    @property
    def certificate_directory(self) -> Path:
        return Path.home() / HOME / "certificates"

    @classmethod
    def load(cls, environment: Mapping[str, str] = os.environ) -> Config:
        """The settings of this process: defaults, then the TOML file, then ``DEMOS_*``."""
        values: dict[str, Any] = {}
        if path := environment.get(PREFIX + "CONFIG"):
            try:
                values.update(tomllib.loads(Path(path).read_text(encoding="utf-8")))
            except (OSError, ValueError) as error:
                raise InvalidInput(f"{PREFIX}CONFIG names {path}, which cannot be read: {error}") from None
        _check_spelling(environment)
        for f in fields(cls):
            if (text := environment.get(PREFIX + f.name.upper())) is not None:
                values[f.name] = text
        return cls().changed(**values)

    def changed(self, **values: Any) -> Config:
        """A copy with some settings changed; text becomes the setting's type."""
        kinds = get_type_hints(Config)
        for name, value in values.items():
            if name not in kinds:
                raise InvalidInput(f"unknown setting {name!r}; there are {', '.join(kinds)}")
            values[name] = _convert(name, kinds[name], value)
        return replace(self, **values)


def _convert(name: str, kind: Any, value: Any) -> Any:
    """The value of a setting, as what it is to be."""
    try:
        converted = kind(value)
        # A nan, which is like nothing, is no number >= 0.
        fits = isinstance(value, str) or converted == value or converted != converted
    except (TypeError, ValueError, OverflowError):
        fits = False
    if not fits:  # 2.5 requests, an infinity of bytes
        what = {int: "a whole number, in digits", float: "a number", str: "text"}[kind]
        raise InvalidInput(f"setting {name} ({PREFIX}{name.upper()}) is {value!r}; it is {what}")
    return converted


def _check_spelling(environment: Mapping[str, str]) -> None:
    """A mistyped setting would be left out in silence, be it that of an access list."""
    known = [PREFIX + "CONFIG", *(PREFIX + f.name.upper() for f in fields(Config))]
    for name in environment:
        if name.startswith(PREFIX) and name not in known and (close := get_close_matches(name, known, 1, 0.85)):
            raise InvalidInput(f"{name} is no setting; did you mean {close[0]}?")
