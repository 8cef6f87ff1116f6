"""All the data that one worker has: datasets, uploads, and what of both it holds in memory."""

from __future__ import annotations

from .config import Config
from .library import Library
from .residents import Residents
from .spec import ModelSpec
from .spool import Spool
from .transport.buffers import Buffers


class Stock:
    """The data of one worker's model."""

    def __init__(self, spec: ModelSpec, config: Config) -> None:
        allowed = list(filter(None, config.data_directories.split(":")))
        self._buffers = Buffers()
        self.library = Library(spec.datasets, allowed, make_room=self._buffers.take)
        self.spool = Spool(config.spool_directory, config.max_request_bytes)
        self.spool.sweep()
        self.residents = Residents(self.library, self.spool.directory, config.resident_bytes)

    def trim(self, now: float) -> None:
        """Gives back the memory of answers that was not needed lately, ``now`` on the monotonic clock."""
        self._buffers.trim(now)

    def close(self) -> None:
        """Lets go of all files and memory."""
        self.residents.close()
        self.library.close()
