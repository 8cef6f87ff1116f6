"""A dispatcher's memory of answers: requests that come again are answered without a worker (`cache`)."""

from __future__ import annotations

from collections.abc import Sequence

from .cache import Cache, Gathering, key_of, may_cache
from .calls import Batch, Call
from .events import SendPart
from .messages import LIKELIHOODS, Flag, Kind, Operation
from .plan import Plan
from .relay import find_nonfinite
from .served import Served
from .wire import Frame, Packed, pack


class Recall:
    """Answers of all models of a server, in at most ``max_bytes``."""

    def __init__(self, max_bytes: int) -> None:
        self.cache = Cache(max_bytes)

    def find(self, call: Call, served: Served) -> Packed | None:
        """The reply to a request that was answered before; else its answer will be kept, if it may be."""
        header, plan, spec = call.first.header, call.plan, served.spec
        if not isinstance(plan, Plan):
            return None  # of files, which change
        if plan.part_rows < plan.rows and plan.operation is not Operation.SAMPLE:
            return None  # what is asked is not all here
        seed = None if header.flags & Flag.FRESH_SEED else header.seed
        if not may_cache(spec, header.operation, seed):
            return None
        arrays = list(call.first.arrays)
        if not plan.has_params and call.defaults is not None:
            arrays.append(call.defaults)
        key = key_of(
            _name(served),
            spec.version,
            call.revision,
            header.operation,
            header.flags,
            plan.rows,
            header.seed,
            arrays,
            call.before,
        )
        answer = self.cache.get(key)
        n_rows = plan.points * plan.n_blocks if plan.operation in LIKELIHOODS else plan.rows
        if answer is None:
            call.gathering = Gathering(self.cache, key, n_rows)
            return None
        served.statistics.nonfinite_rows += answer.nonfinite
        return pack(
            Kind.REPLY,
            answer.arrays,
            operation=header.operation,
            flags=Flag.FINAL,
            model=header.model,
            id=call.id,
            n_rows=n_rows,
            revision=answer.revision,
            deadline_ms=answer.nonfinite,
        )

    def gather(self, batch: Batch, result: Frame, parts: Sequence[SendPart]) -> None:
        """Keeps what a worker has computed for those whose answers are to be kept."""
        header, rows = result.header, batch.calls[0].plan.rows
        for part in parts:
            call = batch.calls[part.index]
            if call.gathering is None:
                continue
            if len(batch.calls) == 1:
                first = header.first_row - call.before
                call.gathering.add(first, result.arrays, header.deadline_ms, call.revision)
                continue
            arrays = [array[part.index * rows : (part.index + 1) * rows] for array in result.arrays]
            call.gathering.add(0, arrays, int(find_nonfinite(arrays[0]).sum()), call.revision)

    def forget(self, served: Served) -> None:
        """The parameters of this model have changed."""
        self.cache.clear(_name(served))


def _name(served: Served) -> str:
    return f"{served.spec.uuid or served.spec.name} {served.source}"
