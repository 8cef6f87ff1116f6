"""A model that is served elsewhere, called as if it were here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from .arguments import Params
from .connection import Connection
from .errors import InvalidInput
from .likelihood import Likelihood
from .messages import FloatArray, Operation
from .resident_data import ResidentData, find_dataset, make_resident, upload
from .samplers import SamplerPool
from .submit import Submit

if TYPE_CHECKING:
    from .remote_data import RemoteDataset


class RemoteModel:
    """A served model. Get one from `demos_hpc.connect` or `demos_hpc.local`; use it in a ``with`` block.

    n rows, d observables, p parameters, m parameter points, q outputs; all arrays float64, units as in ``spec``.
    ``params`` is one point (p,), one for each row (n, p), a dict of names, or left out: then the server's own
    parameters are used (`set_params`). Points outside their bounds have log-density ``-inf``; ``strict=True``
    raises `InvalidInput` instead. ``timeout`` is in seconds, ``progress(done, total)`` is called as rows come.

    Errors of all operations: `InvalidInput` for the caller's, before anything travels; `NotOffered`;
    `ModelFailed` with the worker's traceback as its cause; `DeadlineExceeded`, `ServerLost`, `Busy`,
    `StaleRevision`, `TooLarge`.
    """

    def __init__(self, connection: Connection, description: Mapping[str, Any], *, owns_connection: bool = True) -> None:
        self._connection = connection
        self._owns_connection = owns_connection
        #: The same operations, each returning a `Future` at once.
        self.submit = Submit(connection, description, lambda: self.params)
        self.spec = self.submit.spec

    def __repr__(self) -> str:
        return f"<RemoteModel {self.spec.name} {self.spec.version}: {', '.join(self.spec.operations)}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection, unless other models share it; requests that are not done end with `ServerLost`.

        Does nothing in a fork of the process that made it: the connection is not the fork's.
        """
        if self._owns_connection and self._connection.is_ours:
            self._connection.say_goodbye()

    # ---- operations -----------------------------------------------------------------------------------------

    def log_density(self, x: Any, params: Params = None, **options: Any) -> FloatArray:
        """log P(x_i | params): x (n, d) to (n,). Options: out (n,), strict, timeout, progress."""
        return self.submit.log_density(x, params, **options).result()  # type: ignore[no-any-return]

    def log_density_gradient(self, x: Any, params: Params = None, **options: Any) -> tuple[FloatArray, FloatArray]:
        """Value (n,) and gradient (n, p), or (n, d) for ``wrt="x"``; zero where the value is -inf.

        ``method="finite-difference"`` computes it from densities (central differences), for models that offer no
        gradient; it is never used unasked. Options: wrt, method, out, strict, timeout, progress.
        """
        return self.submit.log_density_gradient(x, params, **options).result()  # type: ignore[no-any-return]

    def log_likelihood(self, x: Any, params: Params = None, **options: Any) -> Any:
        """Sum over the rows of x (n, d), or of resident data: a float for params (p,), (m,) for (m, p).

        The same to the last bit for any number of workers. Options: strict, timeout, progress.
        """
        return self.submit.log_likelihood(x, params, **options).result()

    def log_likelihood_gradient(self, x: Any, params: Params = None, **options: Any) -> tuple[Any, FloatArray]:
        """Value and gradient: float and (p,), or (m,) and (m, p). Options: method, strict, timeout, progress."""
        return self.submit.log_likelihood_gradient(x, params, **options).result()  # type: ignore[no-any-return]

    def sample(self, n: int, params: Params = None, **options: Any) -> FloatArray:
        """n draws (n, d); the same seed gives the same draws for any number of workers.

        ``first`` asks for the draws from ``first`` on of the sequence that ``seed`` names, a multiple of the model's
        ``block_rows``: so a long sample may be had in parts. Options: seed (0 to 2**64 - 1; drawn if not given), first,
        out (n, d), timeout, progress.
        """
        return self.submit.sample(n, params, **options).result()  # type: ignore[no-any-return]

    def evaluate(self, params: Params = None, **options: Any) -> FloatArray:
        """The model's forward map: params (p,) to (q,), (m, p) to (m, q). Options: out, timeout, progress."""
        return self.submit.evaluate(params, **options).result()  # type: ignore[no-any-return]

    def dataset(self, name: str, *, direct: bool | None = None) -> RemoteDataset:
        """A dataset of the model, read like one of h5py: ``model.dataset("events")[10:20, ::2]``.

        ``direct`` says whether this process reads the file itself: True, or an error; False, never; None, where it can
        and the workers would not be faster.
        """
        from .remote_data import RemoteDataset  # h5py takes its time

        description = find_dataset(self._connection, self.submit.handle, self.spec, name)
        metadata = self.metadata()
        limits = {"max_bytes": metadata["max_request_bytes"], "workers": metadata["workers"]}
        return RemoteDataset(self._connection, self.submit.handle, description, **limits, direct=direct)

    def resident(self, name: str, *, columns: Sequence[str] | None = None, weights: str | None = None) -> ResidentData:
        """The rows of a dataset, held by the workers: give them to `log_likelihood` in place of x.

        Parameters
        ----------
        name
            A dataset of shape (n, d), or (n,) with fields.
        columns
            The fields that are the observables, in order; those of the observables' names unless given.
        weights
            A field, or a dataset of shape (n,), that each row's log-density is multiplied by.
        """
        if weights is not None and not isinstance(weights, str):
            raise InvalidInput("weights is the name of a field or of a dataset; for an array use upload(x, weights=…)")
        self.spec.check_holding()
        find = partial(find_dataset, self._connection, self.submit.handle, self.spec)
        is_dataset = weights in self.datasets
        return make_resident(find(name), self.spec, columns, find(weights) if is_dataset and weights else weights)

    def upload(self, x: npt.ArrayLike, *, weights: npt.ArrayLike | None = None, progress: Any = None) -> ResidentData:
        """Brings rows x (n, d), and perhaps weights (n,), to the server, once; the workers hold them from then on.

        They are kept under the digest of their content, so that the same rows travel once, whoever brings them, and are
        removed when nobody has used them for two weeks. ``progress(done, total)`` is called as rows leave.
        """
        return upload(self._connection, self.submit.handle, self.spec, x, weights, progress)

    @property
    def datasets(self) -> tuple[str, ...]:
        """Names of the model's datasets."""
        return tuple(dataset.name for dataset in self.spec.datasets)

    def describe_datasets(self, timeout: float | None = None) -> list[dict[str, Any]]:
        """What the workers say of all datasets: shape, filters and so on, or the ``problem`` where one has none."""
        if not self.spec.datasets:
            return []
        answer = self._connection.ask(Operation.DESCRIBE, {}, model=self.submit.handle).result(timeout)
        return answer["datasets"]  # type: ignore[no-any-return]

    log_prob = logpdf = logp = log_density
    rvs = sample

    def likelihood(self, x: Any, **options: Any) -> Likelihood:
        """The log-likelihood of the rows x (n, d) as a function of free parameters, for samplers and minimizers.

        Options: free, names in the order of theta (all that are not fixed); fixed, ``{name: value}`` (by default
        the server's parameters of now); log_prior, theta (k,) to float, which is added; log_prior_gradient, theta
        (k,) to (k,); vectorized_prior, if both take points (m, k) at once; method, as of `log_likelihood_gradient`.
        """
        return Likelihood(self.submit, self.spec, self.params, x, **options)

    def pool(self) -> SamplerPool:
        """A pool with ``map``, for samplers that want one: points are spread over the model's workers."""
        return SamplerPool(self)

    def metadata(self) -> dict[str, Any]:
        """Spec, server-side parameters and their revision, workers, limits, statistics."""
        question = {"model": self.spec.uuid}
        return self._connection.ask(Operation.METADATA, question).result()  # type: ignore[no-any-return]

    @property
    def params(self) -> FloatArray:
        """The server-side parameters (p,), nan where there is none."""
        values = self.metadata()["params"]
        return np.array([np.nan if values[n] is None else values[n] for n in self.spec.param_names], dtype=np.float64)

    def set_params(self, changes: Mapping[str, float] | None = None, /, **more: float) -> int:
        """Changes server-side parameters for everybody; returns their new revision."""
        merged = {**(changes or {}), **more}
        if not merged:
            raise InvalidInput(f"nothing to change was given; {self.spec.describe_params()}")
        self.spec.change(self.spec.defaults, merged)  # errors before anything travels
        values = {name: float(value) for name, value in merged.items()}
        future = self._connection.ask(Operation.SET_PARAMS, values, model=self.submit.handle)
        future.result()
        return future.revision

    def pin(self, revision: int) -> None:
        """From now on requests end with `StaleRevision` unless server-side parameters have this revision; 0 = any."""
        if isinstance(revision, bool) or not isinstance(revision, int) or not 0 <= revision < 2**32:
            raise InvalidInput(f"revision is {revision!r}; it is what set_params returned, or 0 for any")
        self.submit.pinned_revision = revision
