"""Every exception of the package, and the one table of status numbers.

The numbers are those of ``enum demos_status`` in ``csrc/include/demos.h``; a test holds both together.
"""

from __future__ import annotations

from concurrent.futures import CancelledError
from enum import IntEnum


class Status(IntEnum):
    """How a request ended, as one number on the wire."""

    OK = 0
    INVALID_INPUT = 1
    NOT_OFFERED = 2
    MODEL_FAILED = 3
    MODEL_CRASHED = 4
    BUSY = 5
    DRAINING = 6
    CANCELLED = 7
    DEADLINE = 8
    TOO_LARGE = 9
    STALE_REVISION = 10
    BAD_FRAME = 11
    BAD_VERSION = 12
    SERVER_LOST = 13
    INTERNAL = 14
    MODEL_NOT_FOUND = 15
    REFUSED = 16
    DATASET_FAILED = 17


class DemosError(Exception):
    """Base of all errors of this package; ``status`` is its number on the wire."""

    status = Status.INTERNAL


class InvalidInput(DemosError, ValueError):
    """The caller's error: a shape, a dtype, a name or a bound."""

    status = Status.INVALID_INPUT


class NotOffered(DemosError, NotImplementedError):
    """The model does not have this operation."""

    status = Status.NOT_OFFERED


class ModelFailed(DemosError, RuntimeError):
    """The model raised, or returned something of the wrong shape; its traceback is the cause."""

    status = Status.MODEL_FAILED


class ModelCrashed(DemosError, RuntimeError):
    """Some rows killed every worker that computed them."""

    status = Status.MODEL_CRASHED


class Busy(DemosError, RuntimeError):
    """The server's queues are full: try again after ``retry_after`` seconds."""

    status = Status.BUSY
    retry_after = 1.0


class Draining(DemosError, RuntimeError):
    """The server is about to end and takes no new work: try another server."""

    status = Status.DRAINING


class Cancelled(DemosError, CancelledError):
    """The request was cancelled before it was done."""

    status = Status.CANCELLED


class DeadlineExceeded(DemosError, TimeoutError):
    """The answer was not there in time."""

    status = Status.DEADLINE


class TooLarge(DemosError, ValueError):
    """The request is over a limit of the server."""

    status = Status.TOO_LARGE


class StaleRevision(DemosError, RuntimeError):
    """The server-side defaults have another revision than the one that the client pinned."""

    status = Status.STALE_REVISION


class BadFrame(DemosError, ValueError):
    """Bytes that are no frame: truncated, inconsistent, or of an unknown kind."""

    status = Status.BAD_FRAME


class BadVersion(DemosError):
    """The peer speaks another major version of the wire."""

    status = Status.BAD_VERSION


class ServerLost(DemosError, ConnectionError):
    """The server ended, or can no longer be reached."""

    status = Status.SERVER_LOST


class InternalError(DemosError, RuntimeError):
    """A defect of demos-hpc itself; please report it."""

    status = Status.INTERNAL


class LaunchError(DemosError, RuntimeError):
    """The ranks of one launch could not be brought together."""


class RegistryError(DemosError, OSError):
    """The directory where running servers are listed cannot be written."""


class ModelNotFound(DemosError, LookupError):
    """The file, the module or the class of a model does not exist."""

    status = Status.MODEL_NOT_FOUND


class DatasetError(DemosError, OSError):
    """A dataset cannot be read: its file is missing, truncated, altered or replaced, or a filter is missing."""

    status = Status.DATASET_FAILED


class AccessRefused(DemosError, PermissionError):
    """The server does not let this user in, or do this; the server's audit log says why."""

    status = Status.REFUSED


class StatusError(Exception):
    """How a model in another language failed: a `Status`, and its own words. No caller ever sees it."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = Status(status)


class RemoteTraceback(Exception):
    """Carries the traceback of another process, shown as the cause of an error here."""

    def __str__(self) -> str:
        return "\n" + str(self.args[0])


EXCEPTION_OF: dict[int, type[DemosError]] = {
    error.status: error
    for error in (
        InvalidInput,
        NotOffered,
        ModelFailed,
        ModelCrashed,
        Busy,
        Draining,
        Cancelled,
        DeadlineExceeded,
        TooLarge,
        StaleRevision,
        BadFrame,
        BadVersion,
        ServerLost,
        InternalError,
        ModelNotFound,
        AccessRefused,
        DatasetError,
    )
}
