"""What is said between client, dispatcher and worker.

The numbers are those of ``csrc/include/demos.h``. Frames that are made several times per request are
NamedTuples in ``wire``; what is said once per connection, or when something fails, is a frozen dataclass
here, checked at birth, and travels as JSON.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from enum import IntEnum, IntFlag
from types import UnionType
from typing import Any, Self, get_args, get_origin, get_type_hints

import numpy as np
import numpy.typing as npt

from .errors import EXCEPTION_OF, BadFrame, Busy, DemosError, InternalError, RemoteTraceback

FloatArray = npt.NDArray[np.float64]
Array = npt.NDArray[Any]

#: Cores that a worker may have.
MOST_THREADS = 1 << 20


class Kind(IntEnum):
    """What a frame is; the arrows stand in ``demos.h``."""

    REQUEST = 1
    ROWS = 2
    CANCEL = 3
    REPLY = 4
    CHUNK = 5
    RESULT = 6
    HELLO = 7
    WELCOME = 8
    GOODBYE = 9
    END = 10
    CHALLENGE = 11
    PROOF = 12
    PING = 13
    PONG = 14
    BEAT = 15
    TICKET = 16
    NOW = 17
    SWITCH = 18
    RING = 19
    COMPRESSED = 20


class Operation(IntEnum):
    """What a model can be asked for, or, as in `CONTROLS`, a server."""

    LOG_DENSITY = 1
    LOG_DENSITY_GRADIENT = 2
    LOG_LIKELIHOOD = 3
    LOG_LIKELIHOOD_GRADIENT = 4
    SAMPLE = 5
    EVALUATE = 6
    METADATA = 7
    SET_PARAMS = 8
    STATISTICS = 9
    DRAIN = 10
    STOP = 11
    DATASET = 12
    DESCRIBE = 13
    DIGEST = 14
    UPLOAD = 15

    @property
    def title(self) -> str:
        """The name of the method: ``log_density`` and so on."""
        return self.name.lower()


#: What is asked of a server, not of a model.
CONTROLS = frozenset({Operation.STATISTICS, Operation.DRAIN, Operation.STOP})
#: What is asked of a model's datasets.
OF_DATA = frozenset({Operation.DATASET, Operation.DESCRIBE, Operation.DIGEST, Operation.UPLOAD})
LIKELIHOODS = frozenset({Operation.LOG_LIKELIHOOD, Operation.LOG_LIKELIHOOD_GRADIENT})
GRADIENTS = frozenset({Operation.LOG_DENSITY_GRADIENT, Operation.LOG_LIKELIHOOD_GRADIENT})


class Flag(IntFlag):
    """Bits of a header's ``flags``."""

    NONE = 0
    FINAL = 1
    WRT_X = 2
    BLOCK_MAJOR = 4
    FRESH_SEED = 8
    RESIDENT = 16


def to_json(value: Mapping[str, Any] | Sequence[Any]) -> Array:
    """JSON text as (n,) uint8; nan and infinity are refused, since JSON has none."""
    return np.frombuffer(json.dumps(value, allow_nan=False).encode(), dtype=np.uint8)


def from_json(array: Array) -> Any:
    """The value of (n,) uint8 JSON text; `BadFrame` where it is none."""
    try:
        return json.loads(array.tobytes().decode())
    except (ValueError, RecursionError) as error:  # nested a thousand deep is as bad as malformed
        raise BadFrame(f"{array.size} bytes that should be JSON are not: {error}") from None


class FromJson:
    """Builds a frozen dataclass from what JSON gave: unknown members, of a newer minor version, are left out."""

    @classmethod
    def from_dict(cls, values: Any) -> Self:
        if not isinstance(values, dict):
            raise BadFrame(f"{cls.__name__} is a JSON object, not {type(values).__name__}")
        hints = get_type_hints(cls)
        known = {f.name: _read(values[f.name], hints[f.name]) for f in fields(cls) if f.name in values}  # type: ignore[arg-type]
        if wrong := sorted(name for name, value in known.items() if not _fits(value, hints[name])):
            raise BadFrame(f"{cls.__name__} with {', '.join(wrong)} of the wrong type")
        try:
            return cls(**known)
        except TypeError as error:
            raise BadFrame(f"{cls.__name__} is incomplete: {error}") from None

    def to_dict(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]


def _read(value: Any, hint: Any) -> Any:
    """A float where one is wanted: JSON may write it as an integer. One that no float holds stays what it is."""
    if hint is float and isinstance(value, int):
        with contextlib.suppress(OverflowError):
            return float(value)
    return value


def _fits(value: Any, hint: Any) -> bool:
    options = get_args(hint) if isinstance(hint, UnionType) else (hint,)
    return isinstance(value, tuple(get_origin(option) or option for option in options))


@dataclass(frozen=True)
class Hello(FromJson):
    """Who a process is, said once when the ranks of one launch call the roll.

    ``role`` is ``server`` or ``client``; ``group`` names the processes that belong together: those that were
    started with the same words. ``bell`` says where to ring when this process sleeps (`transport.doorbell`).
    """

    role: str
    group: str
    host: str
    pid: int
    user: str
    bell: str

    def __post_init__(self) -> None:
        if self.role not in ("server", "client"):
            raise BadFrame(f"Hello with the unknown role {self.role!r}")


@dataclass(frozen=True)
class Welcome(FromJson):
    """The answer to Hello: everybody's, in order of their ranks, and a word that they share.

    ``spec`` is the text of the file that describes the model of ranks in C, if there is one.
    """

    hellos: list[dict[str, Any]]
    token: str
    spec: str = ""


@dataclass(frozen=True)
class Offer(FromJson):
    """What a worker has to offer, once its model is loaded: the model's spec, or why there is none.

    ``fingerprint`` is what results may depend on to the last bit: NumPy, its libraries, CPU features. ``source``
    tells models apart that say the same of themselves: a digest of the code. Workers that share memory are at the
    same ``place``. ``threads`` are the cores that the worker has for its model.
    """

    worker: str
    fingerprint: str
    source: str = ""
    spec: dict[str, Any] | None = None
    failure: dict[str, Any] | None = None
    place: str = ""
    threads: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.threads <= MOST_THREADS:
            raise BadFrame(f"a worker with {str(self.threads)[:20]} threads")


@dataclass(frozen=True)
class Failure(FromJson):
    """Why a request has no answer; the payload of a RESULT or REPLY whose status is not OK."""

    status: int
    message: str
    traceback: str = ""
    retry_after: float = 0.0

    @classmethod
    def of(cls, error: DemosError, traceback: str = "") -> Failure:
        return cls(int(error.status), str(error), traceback, getattr(error, "retry_after", 0.0))

    def to_exception(self) -> DemosError:
        """The exception that the caller sees, with the other side's traceback as its cause."""
        # A status that only a newer minor version has is at least an error.
        error = EXCEPTION_OF.get(self.status, InternalError)(self.message)
        if isinstance(error, Busy):
            error.retry_after = self.retry_after
        if self.traceback:
            error.__cause__ = RemoteTraceback(self.traceback)
        return error
