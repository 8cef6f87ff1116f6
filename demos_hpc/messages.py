"""What is said between client, dispatcher and worker.

The numbers are those of ``csrc/include/demos.h``. Frames that are made several times per request are
NamedTuples in ``wire``; what is said once per connection, or when something fails, is a frozen dataclass
here, checked at birth, and travels as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from enum import IntEnum, IntFlag
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from .errors import EXCEPTION_OF, BadFrame, Busy, DemosError, RemoteTraceback, Status

FloatArray = npt.NDArray[np.float64]
Array = npt.NDArray[Any]


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


class Operation(IntEnum):
    """What a model can be asked for."""

    LOG_DENSITY = 1
    LOG_DENSITY_GRADIENT = 2
    LOG_LIKELIHOOD = 3
    LOG_LIKELIHOOD_GRADIENT = 4
    SAMPLE = 5
    EVALUATE = 6
    METADATA = 7
    SET_PARAMS = 8

    @property
    def title(self) -> str:
        """The name of the method: ``log_density`` and so on."""
        return self.name.lower()


LIKELIHOODS = frozenset({Operation.LOG_LIKELIHOOD, Operation.LOG_LIKELIHOOD_GRADIENT})
GRADIENTS = frozenset({Operation.LOG_DENSITY_GRADIENT, Operation.LOG_LIKELIHOOD_GRADIENT})


class Flag(IntFlag):
    """Bits of a header's ``flags``."""

    NONE = 0
    FINAL = 1
    WRT_X = 2
    BLOCK_MAJOR = 4


def to_json(value: Mapping[str, Any] | Sequence[Any]) -> Array:
    """JSON text as (n,) uint8; nan and infinity are refused, since JSON has none."""
    return np.frombuffer(json.dumps(value, allow_nan=False).encode(), dtype=np.uint8)


def from_json(array: Array) -> Any:
    """The value of (n,) uint8 JSON text; `BadFrame` where it is none."""
    try:
        return json.loads(array.tobytes())
    except ValueError as error:
        raise BadFrame(f"{array.size} bytes that should be JSON are not: {error}") from None


class _FromJson:
    """Builds a frozen dataclass from a mapping and refuses what does not belong."""

    @classmethod
    def from_dict(cls, values: Any) -> Self:
        if not isinstance(values, dict):
            raise BadFrame(f"{cls.__name__} is a JSON object, not {type(values).__name__}")
        names = {f.name for f in fields(cls)}  # type: ignore[arg-type]
        unknown, missing = sorted(set(values) - names), sorted(names - set(values))
        if unknown or missing:
            raise BadFrame(f"{cls.__name__} with unknown {unknown}, missing {missing}")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)  # type: ignore[call-overload, no-any-return]


@dataclass(frozen=True)
class Hello(_FromJson):
    """Who a process is, said once when it comes in.

    ``role`` is ``dispatcher``, ``worker`` or ``client``; ``group`` names the processes that belong together
    (the model's name for servers, the script for clients); ``fingerprint`` is what results may depend on to
    the last bit (NumPy, CPU features).
    """

    role: str
    group: str
    host: str
    pid: int
    user: str = ""
    fingerprint: str = ""
    #: Where to ring when this process sleeps: see ``transport.doorbell``.
    bell: str = ""
    spec: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.role not in ("dispatcher", "worker", "client"):
            raise BadFrame(f"Hello with the unknown role {self.role!r}")


@dataclass(frozen=True)
class Welcome(_FromJson):
    """The dispatcher's answer to Hello: everybody's, or why there is no service."""

    hellos: list[dict[str, Any]] = field(default_factory=list)
    refusal: str = ""


@dataclass(frozen=True)
class Failure(_FromJson):
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
        error = EXCEPTION_OF[Status(self.status)](self.message)
        if isinstance(error, Busy):
            error.retry_after = self.retry_after
        if self.traceback:
            error.__cause__ = RemoteTraceback(self.traceback)
        return error
