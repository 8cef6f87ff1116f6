"""A model as the dispatcher knows it: its spec, the server-side parameters, the plans of its requests."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from .data_plan import DataPlan, make_data_plan
from .errors import Busy, InvalidInput, TooLarge
from .messages import LIKELIHOODS, OF_DATA, Flag, FloatArray, Operation
from .plan import Plan, make_plan
from .resident_plan import SHORT_BYTES, ResidentPlan, make_resident_plan
from .spec import ModelSpec
from .wire import Frame, Layout

_RESIDENT = int(Flag.RESIDENT)
#: Plans kept for requests that look like earlier ones.
KEPT_PLANS = 4096
#: How often parameters are set again where another server was faster.
TRIES = 10


#: A revision and its values by parameter name.
Stored = tuple[int, dict[str, float]]


class ParamStore(Protocol):
    """Where the server-side parameters of one model outlive its servers (`revisions`)."""

    @property
    def problems(self) -> Sequence[object]:
        """What the last `read` has passed over."""

    def read(self) -> Stored | None: ...

    def find_newest(self) -> int: ...

    def write(self, revision: int, values: Mapping[str, float]) -> bool: ...


@dataclass
class Statistics:
    """What was done for a model since the server began."""

    requests: int = 0
    rows: int = 0
    failures: int = 0
    #: Rows (or cells of likelihoods) answered with nan or +inf.
    nonfinite_rows: int = 0
    model_seconds: float = 0.0

    def add_chunk(self, nonfinite_rows: int, seconds: float) -> None:
        """A chunk that took its model ``seconds`` has been answered."""
        self.nonfinite_rows += nonfinite_rows
        self.model_seconds += seconds


class Served:
    """One model; ``defaults`` are the server-side parameters (p,), nan where there is none."""

    def __init__(self, handle: int, spec: ModelSpec, source: str, max_request_bytes: int) -> None:
        self.handle = handle
        self.spec = spec
        #: A digest of its code.
        self.source = source
        self.defaults: FloatArray = spec.defaults
        self.revision = 1
        self.workers = 0
        self.fingerprints: list[str] = []
        self.statistics = Statistics()
        self.store: ParamStore | None = None
        #: A stored revision that does not fit this model.
        self._unfit = 0
        self._max_request_bytes = max_request_bytes
        self._plans: dict[tuple[int, int, int, Layout], Plan] = {}
        self._resident_plans: dict[tuple[Any, ...], ResidentPlan] = {}

    def set_params(self, changes: Any) -> None:
        """Changes server-side parameters, ``{name: value}``, and their revision."""
        for _ in range(TRIES):
            with contextlib.suppress(InvalidInput):  # what does not fit is overwritten
                self.follow()
            defaults, revision = self.spec.change(self.defaults, changes), self.revision + 1
            if self.store is not None:
                revision = max(revision, self.store.find_newest() + 1)
                if not self.store.write(revision, self._name_values(defaults)):
                    continue  # another server of this model was faster
            self.defaults, self.revision = defaults, revision
            return
        raise Busy(f"other servers of model {self.spec.name!r} change its parameters all the time; try again")

    def keep_in(self, store: ParamStore) -> None:
        """From now on server-side parameters are those in ``store``, as for all servers of this model.

        Raises
        ------
        InvalidInput
            Where those that are there now do not fit.
        """
        self.store = store
        self.follow()

    def follow(self) -> None:
        """Takes over what another server of this model has set, if anything; raises as `take_over`."""
        if self.store is not None:
            self.take_over(self.store.read())

    def take_over(self, found: Stored | None) -> None:
        """Takes over what was found in the store, if it is newer.

        Raises
        ------
        InvalidInput
            The first time that a revision is found that does not fit, as after another version of the model.
        """
        if found is None or found[0] <= max(self.revision, self._unfit):
            return
        revision, values = found
        try:
            defaults = self.spec.change(self.spec.defaults, values)
        except InvalidInput as error:
            self._unfit = revision
            raise InvalidInput(
                f"revision {revision} of the stored parameters of model {self.spec.name!r} does not fit it, and is"
                f" left out: {error}"
            ) from None
        self.defaults, self.revision = defaults, revision

    def _name_values(self, params: FloatArray) -> dict[str, float]:
        values = zip(self.spec.param_names, params.tolist(), strict=True)
        return {name: value for name, value in values if not math.isnan(value)}

    def plan(self, frame: Frame) -> Plan | DataPlan | ResidentPlan:
        """How a request is worked on; `InvalidInput`, `NotOffered` or `TooLarge` where it is not."""
        header = frame.header
        if header.operation in OF_DATA:
            return make_data_plan(self.spec, frame, self._max_request_bytes)
        if header.flags & _RESIDENT and header.operation in LIKELIHOODS:
            return self._plan_resident(frame)
        layout = frame.layout
        key = (header.operation, header.flags, header.n_rows, layout)
        plan = self._plans.get(key)
        if plan is None:
            plan = make_plan(self.spec, header, layout)
            self._check_size(plan, header.payload)
            if len(self._plans) >= KEPT_PLANS:
                self._plans.clear()
            self._plans[key] = plan
        if not plan.has_params:
            self._check_defaults(plan)
        return plan

    def _plan_resident(self, frame: Frame) -> ResidentPlan:
        """The same for data that the workers hold."""
        names = frame.arrays[:2]
        key: tuple[Any, ...] | None = None
        if sum(array.nbytes for array in names) <= SHORT_BYTES:
            key = (frame.header.operation, frame.header.n_rows, frame.layout, *(array.tobytes() for array in names))
        plan = None if key is None else self._resident_plans.get(key)
        if plan is None:
            plan = make_resident_plan(self.spec, frame)
            if len(self._resident_plans) >= KEPT_PLANS:
                self._resident_plans.clear()
            if key is not None:
                self._resident_plans[key] = plan
        if not plan.has_params:
            self.spec.check_complete(self.defaults)
        return plan

    def _check_size(self, plan: Plan, payload: int) -> None:
        size = payload * plan.rows // plan.part_rows
        if size > self._max_request_bytes:
            raise TooLarge(
                f"a request of {plan.rows} rows, about {size} bytes; this server takes"
                f" {self._max_request_bytes} (DEMOS_MAX_REQUEST_BYTES): split the request"
            )

    def _check_defaults(self, plan: Plan) -> None:
        self.spec.check_complete(self.defaults)
        if plan.operation is Operation.EVALUATE and plan.rows > 1:
            raise InvalidInput(f"evaluate of {plan.rows} points without params")

    def describe(self) -> dict[str, Any]:
        """The answer to ``metadata``, for JSON."""
        values = zip(self.spec.param_names, self.defaults.tolist(), strict=True)
        return {
            "handle": self.handle,
            "source": self.source,
            "spec": self.spec.to_dict(),
            "revision": self.revision,
            "params": {name: None if math.isnan(value) else value for name, value in values},
            "workers": self.workers,
            "fingerprints": self.fingerprints,
            "max_request_bytes": self._max_request_bytes,
            "statistics": asdict(self.statistics),
        }
