"""All settings, in one frozen dataclass; the only reader of ``DEMOS_*`` in the environment, and of TOML."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, get_type_hints

from .errors import InvalidInput

PREFIX = "DEMOS_"


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
    #: A directory where ranks leave a mark before MPI_Init, so that one that never comes can be named.
    run_dir: str = ""

    def __post_init__(self) -> None:
        for name, kind in get_type_hints(Config).items():
            value = getattr(self, name)
            if kind in (int, float) and not value >= 0:
                raise InvalidInput(f"setting {name} is {value}; it is a number >= 0")
            if name in ("window_bytes", "max_queued_requests") and not value:
                raise InvalidInput(f"setting {name} is 0; nothing could ever be sent: give a number > 0")
        if self.bell not in ("auto", "udp"):
            raise InvalidInput(f"setting bell is {self.bell!r}; it is 'auto' or 'udp'")

    @classmethod
    def load(cls, environment: Mapping[str, str] = os.environ) -> Config:
        """The settings of this process: defaults, then the TOML file, then ``DEMOS_*``."""
        values: dict[str, Any] = {}
        if path := environment.get(PREFIX + "CONFIG"):
            try:
                values.update(tomllib.loads(Path(path).read_text(encoding="utf-8")))
            except (OSError, ValueError) as error:
                raise InvalidInput(f"{PREFIX}CONFIG names {path}, which cannot be read: {error}") from None
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
            try:
                values[name] = kinds[name](value)
                fits = isinstance(value, str) or values[name] == value
            except (TypeError, ValueError, OverflowError):
                fits = False
            if not fits:  # 2.5 requests, an infinity of bytes
                raise InvalidInput(f"setting {name} is {value!r}; it is of type {kinds[name].__name__}")
        return replace(self, **values)
