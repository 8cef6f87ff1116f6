"""A worker: holds the model, computes chunks, answers each exactly once. Its verbs mirror the dispatcher's."""

from __future__ import annotations

import math
import os
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from .config import Config
from .errors import BadFrame, DemosError, InternalError, InvalidInput, Status
from .greetings import Beat
from .host import find_place
from .logs import Logger
from .messages import (
    GRADIENTS,
    LIKELIHOODS,
    OF_DATA,
    Array,
    Failure,
    Flag,
    FloatArray,
    Kind,
    Offer,
    Operation,
    from_json,
    to_json,
)
from .model import LoadedModel, format_traceback
from .relay import find_nonfinite
from .resident_plan import Rows, read_reference
from .residents import SHARED_MEMORY
from .transport import LONGEST_WAIT, Link, Port
from .upgrade import Ascent
from .wire import Frame, Header, Packed, pack, read_header

if TYPE_CHECKING:
    from .stock import Stock

#: Longest time given to an answer to leave before the next chunk is begun, seconds.
LONGEST_FLUSH = 0.02
#: Seconds for the last answer, and a goodbye, to leave.
LONGEST_FAREWELL = 5.0
_LOG = Logger("worker")
# The arithmetic of enumerations takes its time.
_RESIDENT, _BLOCK_MAJOR, _WRT_X = int(Flag.RESIDENT), int(Flag.BLOCK_MAJOR), int(Flag.WRT_X)


class Worker:
    """Computes what comes over ``link``, one chunk after the other."""

    def __init__(
        self,
        name: str,
        port: Port,
        link: Link,
        beat_seconds: float = math.inf,
        ascent: Ascent | None = None,
        config: Config | None = None,
    ) -> None:
        self.name = name
        self._port = port
        self._link = link
        self._model: LoadedModel | None = None
        self._opened: Stock | None = None
        self._config = config or Config()
        self._chunks: deque[Frame] = deque()
        self._is_over = False
        self.is_leaving = False
        self._ascent = ascent
        self._beat_seconds = beat_seconds
        self._next_beat = 0.0 if beat_seconds < math.inf else math.inf
        self._traces = _LOG.traces

    def offer(self, make_model: Callable[[], LoadedModel], fingerprint: str) -> None:
        """Loads the model and tells the dispatcher what it is, or why there is none."""
        try:
            model = self._model = make_model()
            place = find_place(SHARED_MEMORY)
            threads = max(self._config.threads, model.threads)
            offer = Offer(self.name, fingerprint, model.source, model.spec.to_dict(), place=place, threads=threads)
        except DemosError as error:
            trace = format_traceback(error) if error.__cause__ else ""
            offer = Offer(self.name, fingerprint, failure=Failure.of(error, trace).to_dict())
        self._link.send(pack(Kind.HELLO, [to_json(offer.to_dict())]))

    def serve(self) -> None:
        """Serves until the dispatcher says that it is over, or somebody that this worker is to `leave`."""
        try:
            with np.errstate(all="ignore"):  # nan and infinities are answers, returned and counted
                while not self._is_over and not self.is_leaving:
                    if not self.step() and not self._is_over:
                        if self._opened is not None:
                            self._opened.trim(time.monotonic())
                        self._port.wait(LONGEST_WAIT)
            if self.is_leaving:
                self._link.send(pack(Kind.GOODBYE))
                self._port.flush(LONGEST_FAREWELL)
        finally:
            self.close()

    def leave(self) -> None:
        """Lets `serve` end after the chunk that is being computed; others get what else is here."""
        self.is_leaving = True

    def close(self) -> None:
        """Lets go of the data that it has, if any."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def step(self) -> bool:
        """Takes what has arrived and computes one chunk; whether there was one."""
        for _, arrived in self._port.receive():
            if self._is_over:  # that its link ends as well is no news
                break
            if isinstance(arrived, DemosError):
                raise arrived  # the dispatcher is no dispatcher
            self._take(arrived)
        if time.monotonic() >= self._next_beat:
            self._next_beat = time.monotonic() + self._beat_seconds
            self._link.send(pack(Kind.BEAT, [to_json(self._find_state().to_dict())]))
        if not self._chunks:
            return False
        chunk = self._chunks.popleft()
        # An answer that could not leave yet would otherwise wait until this chunk is done as well.
        self._port.flush(LONGEST_FLUSH)
        try:
            result = self._compute(chunk)
        except BaseException:  # Ctrl-C in a service of one process, which goes on
            self._chunks.appendleft(chunk)
            raise
        self._link.send(result)
        if self._ascent is not None:
            self._ascent.count()
        if self._traces:
            _tell(chunk.header, read_header(result.head))
        return True

    def _find_state(self) -> Beat:
        if self._opened is None:
            return Beat(find_resident_bytes())
        held = self._opened.residents.statistics()
        return Beat(find_resident_bytes(), held["datasets"], held["held_bytes"], held["budget_bytes"])

    def _take(self, frame: Frame) -> None:
        kind = frame.header.kind
        if kind == Kind.CHUNK:
            self._chunks.append(frame)
        elif kind == Kind.CANCEL:
            for chunk in [c for c in self._chunks if c.header.id == frame.header.id]:
                self._chunks.remove(chunk)
                self._link.send(_pack_result(chunk.header, status=Status.CANCELLED))
        elif kind == Kind.END:
            self._is_over = True
        elif kind in (Kind.TICKET, Kind.SWITCH) and self._ascent is not None:
            self._ascent.take(frame)
        elif kind == Kind.REPLY and frame.header.status:  # what was offered is not wanted
            raise Failure.from_dict(from_json(frame.arrays[0])).to_exception()

    def _compute(self, frame: Frame) -> Packed:
        """The RESULT of a chunk, whatever happens."""
        header = frame.header
        start = time.perf_counter_ns()
        try:
            arrays = self._call(header, frame.arrays)
        except DemosError as error:
            trace = format_traceback(error) if error.__cause__ else ""
            failure = Failure.of(type(error)(f"{error} ({self.name})"), trace)
            return _pack_result(header, [to_json(failure.to_dict())], status=error.status)
        except Exception as error:  # memory that is not there, or a defect: the caller is told, and others go on
            why = InternalError(f"{type(error).__name__}: {error} ({self.name})")
            failure = Failure.of(why, format_traceback(error))
            return _pack_result(header, [to_json(failure.to_dict())], status=why.status)
        spent = time.perf_counter_ns() - start
        nonfinite = 0 if header.operation in OF_DATA else _count_nonfinite(arrays[0])
        return _pack_result(header, arrays, nonfinite=nonfinite, nanoseconds=spent)

    def _call(self, header: Header, arrays: list[Array]) -> list[Array]:
        model = self._model
        if model is None:
            raise InvalidInput("this worker has no model")
        operation = header.operation
        if operation == Operation.LOG_DENSITY:
            return [model.log_density(*arrays)]
        if operation == Operation.LOG_DENSITY_GRADIENT:
            return model.log_density_gradient(*arrays, wrt_x=bool(header.flags & _WRT_X))
        if operation == Operation.SAMPLE:
            return [model.sample(header.first_row, header.n_rows, arrays[0], header.seed)]
        if operation == Operation.EVALUATE:
            return [model.evaluate(arrays[0])]
        if operation in LIKELIHOODS and header.flags & _RESIDENT:
            return self._add_resident(model, header, arrays)
        if operation in LIKELIHOODS:
            cells = model.log_likelihood_cells(*arrays, gradient=operation in GRADIENTS)
            if header.flags & _BLOCK_MAJOR:
                cells = [np.ascontiguousarray(array.swapaxes(0, 1)) for array in cells]
            return [array.reshape(header.n_rows, *array.shape[2:]) for array in cells]
        if operation in OF_DATA:
            return self._fetch(header, arrays)
        raise BadFrame(f"a chunk with the unknown operation {operation}")

    def _add_resident(self, model: LoadedModel, header: Header, arrays: list[Array]) -> list[Array]:
        """Cells of a likelihood of data that this worker has, or reads."""
        asked, span, params = arrays
        reference, rows = read_reference(asked.tobytes()), Rows.of(span)

        def take(first: int, stop: int) -> tuple[FloatArray, FloatArray | None]:
            begin, end = rows.start + rows.step * first, rows.start + rows.step * (stop - 1) + 1
            return self._stock.residents.rows(reference, begin, end, rows.step)

        gradient = header.operation in GRADIENTS
        sums = model.log_likelihood_groups(take, rows.count, params, rows.group, gradient=gradient)
        return [array.reshape(header.n_rows, *array.shape[2:]) for array in sums]

    def _fetch(self, header: Header, arrays: list[Array]) -> list[Array]:
        """What is asked of datasets."""
        question = from_json(arrays[0])
        if header.operation == Operation.DATASET:
            return self._stock.library.read(question, arrays[1:], header.first_row, header.n_rows)
        if header.operation == Operation.DIGEST:
            return self._stock.library.digest(question, header.first_row, header.n_rows)
        if header.operation == Operation.UPLOAD:
            return [to_json(self._stock.spool.answer(question, arrays[1] if len(arrays) > 1 else None))]
        return [to_json(self._stock.library.describe(question.get("dataset")))]

    @property
    def _stock(self) -> Stock:
        """The data of this worker's model, opened when they are first asked for."""
        if self._opened is None:
            from .stock import Stock  # h5py takes its time, and most models have no data

            assert self._model is not None
            self._opened = Stock(self._model.spec, self._config)
        return self._opened


def _tell(chunk: Header, result: Header) -> None:
    _LOG.debug("chunk", chunk=chunk.id, rows=chunk.n_rows, seconds=result.seed / 1e9, status=result.status)


def _pack_result(
    header: Header, arrays: list[Any] | None = None, *, status: int = 0, nonfinite: int = 0, nanoseconds: int = 0
) -> Packed:
    return pack(
        Kind.RESULT,
        [array if array.flags.c_contiguous else np.ascontiguousarray(array) for array in arrays or ()],
        operation=header.operation,
        status=status,
        flags=header.flags,
        model=header.model,
        id=header.id,
        first_row=header.first_row,
        n_rows=header.n_rows,
        revision=header.revision,
        deadline_ms=nonfinite,
        seed=nanoseconds,
    )


def _count_nonfinite(values: FloatArray) -> int:
    """Rows with nan or +inf; -inf is a valid log-density."""
    # Neither can be in a sum that is finite or -inf. Few numbers are added faster outside of NumPy.
    if values.ndim == 1 and len(values) < 32:
        total = sum(values.tolist())
    else:
        with np.errstate(invalid="ignore", over="ignore"):
            total = values.sum()
    if total < np.inf:
        return 0
    return int(find_nonfinite(values).sum())


def find_resident_bytes() -> int:
    """The memory that this process has now."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
