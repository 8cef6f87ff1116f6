"""Opens the log of this process as its settings say (`DEMOS_LOG_LEVEL`, `DEMOS_LOG_FILE`)."""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path

from .config import Config
from .logs import configure, is_configured


def open_log(config: Config, role: str, name: str = "") -> None:
    """From now on this process logs; ``name`` is its own among those that have the same settings.

    With a file, its lines are JSON; on standard error they are for people.

    Raises
    ------
    InvalidInput
        Where the file cannot be opened.
    """
    path = name_file(config.log_file, name or f"{role}-{socket.gethostname()}-{os.getpid()}")
    configure(config.log_level, path, json=path is not None, role=role, name=name)


def open_log_if_wanted(config: Config, role: str) -> None:
    """The same for a process that is not ours alone, an analysis: only where its settings say something of logs."""
    is_wanted = bool(config.log_file) or config.log_level != Config.log_level
    if is_wanted and not is_configured():
        open_log(config, role)


def name_file(file: str, name: str) -> Path | None:
    """The file of one process: ``demos.log`` becomes ``demos-neutrino.0.log``, since no two may write to one file."""
    if not file:
        return None
    path = Path(file)
    return path.with_name(f"{path.stem}-{re.sub(r'[^A-Za-z0-9._-]+', '-', name)}{path.suffix}")
