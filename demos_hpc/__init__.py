"""Serve probabilistic physics models over MPI, and call them with NumPy arrays.

Importing this package never initializes MPI.
"""

from .arguments import Params
from .client import RemoteModel
from .config import Config
from .errors import (
    Busy,
    Cancelled,
    DatasetError,
    DeadlineExceeded,
    DemosError,
    Draining,
    InvalidInput,
    LaunchError,
    ModelCrashed,
    ModelFailed,
    ModelNotFound,
    NotOffered,
    ServerLost,
    StaleRevision,
    TooLarge,
)
from .future import Future
from .likelihood import Likelihood
from .local import local
from .model import Model
from .programs import connect
from .samplers import SamplerPool
from .spec import Dataset, ModelSpec, Observable, Output, Parameter
from .version import __version__

__all__ = [
    "Busy",
    "Cancelled",
    "Config",
    "Dataset",
    "DatasetError",
    "DeadlineExceeded",
    "DemosError",
    "Draining",
    "Future",
    "InvalidInput",
    "LaunchError",
    "Likelihood",
    "Model",
    "ModelCrashed",
    "ModelFailed",
    "ModelNotFound",
    "ModelSpec",
    "NotOffered",
    "Observable",
    "Output",
    "Parameter",
    "Params",
    "RemoteModel",
    "SamplerPool",
    "ServerLost",
    "StaleRevision",
    "TooLarge",
    "__version__",
    "connect",
    "local",
]
