"""A model in a shared library, C, C++ or Fortran, as if its author had written it in Python.

The functions of `csrc/include/demos.h`, which cffi reads from that very file, are called through libdemos, in this
process: arrays go by their addresses, threads may share the rows, and Python may do something else meanwhile.
"""

from __future__ import annotations

import json
import re
import threading
from functools import cache
from pathlib import Path
from typing import Any

import cffi
import numpy as np

from .config import Config
from .errors import EXCEPTION_OF, BadVersion, InvalidInput, ModelFailed, StatusError
from .glue import FUNCTIONS, make_spec, read_glue
from .installation import HEADER, Installation, find_installation
from .messages import FloatArray
from .model_paths import split_native
from .spec import ModelSpec

#: The functions of a model (demos.h, 2) that are methods here.
METHODS = ("log_density", "log_density_gradient", "log_density_gradient_x", "sample", "evaluate")


def read_header(include: Path) -> str:
    """The declarations of ``demos.h``, without its preprocessor lines."""
    text = (include / HEADER).read_text(encoding="utf-8")
    text = re.sub(r"^#ifdef __cplusplus.*?^#endif", "", text, flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"^#.*$", "", text, flags=re.MULTILINE)


@cache
def open_library(installation: Installation) -> tuple[Any, Any]:
    """cffi's view of ``demos.h``, and libdemos.

    Raises
    ------
    InvalidInput
        Where there is no libdemos; the message says why, and what to do.
    BadVersion
        Where it is older than the header, or made for another.
    """
    ffi = cffi.FFI()
    ffi.cdef(read_header(installation.include))
    try:
        # For all: a library of plain functions may use demos_uniform() without being linked to anything.
        library = ffi.dlopen(str(installation.library), ffi.RTLD_NOW | ffi.RTLD_GLOBAL)
    except OSError as error:
        unknown = f"the dynamic linker knows no {installation.library}"
        reason = installation.missing_libraries or (unknown if installation.is_bare else str(error))
        raise InvalidInput(
            f"models in C need libdemos, and this installation has none ({reason}): install a C compiler and then"
            " demos-hpc again, build the library by `meson setup build && ninja -C build` in the sources that you run,"
            " or name one by DEMOS_LIBRARY"
        ) from None
    numbers = _read_numbers(ffi, "demos_abi")
    major, minor = divmod(library.demos_abi_version(), 1 << 16)
    wanted = numbers["ABI_MAJOR"], numbers["ABI_MINOR"]
    if major != wanted[0] or minor < wanted[1]:
        raise BadVersion(
            f"{installation.library} has version {major}.{minor} of demos.h, {installation.include} has"
            f" {wanted[0]}.{wanted[1]}: build the library anew, or name another one by DEMOS_LIBRARY"
        )
    return ffi, library


def _read_numbers(ffi: Any, enum: str) -> dict[str, int]:
    """The numbers of an enumeration, by their names without DEMOS_."""
    return {name.removeprefix("DEMOS_"): number for name, number in ffi.typeof(f"enum {enum}").relements.items()}


class NativeModel:
    """The model that ``path`` names: a library, its description, or ``library:description``.

    It has those of the methods of `demos_hpc.Model` for which the library has functions. One call at a time; what
    several threads ask is answered one after the other.

    Raises
    ------
    InvalidInput
        Where something in its description is missing or wrong.
    ModelFailed
        Where the library cannot be loaded, or its model cannot be made.
    BadVersion
        Where it was built against a ``demos.h`` that this installation does not serve.
    """

    def __init__(self, path: str, config: Config) -> None:
        named = split_native(path)
        assert named is not None
        self._glue = glue = read_glue(*named)
        self._ffi, self._c = open_library(find_installation(config))
        self._lock = threading.Lock()
        self._error = self._ffi.new("demos_error *")
        self._pointer = self._ffi.typeof("double *")
        self._table = self._make_table()
        offered = [name for name in METHODS if getattr(self._table, name)]
        self.spec = self._read_spec(offered)
        self._n_rows = self.spec.n_observables
        self._caller = self._open_caller(config)
        for name in offered:
            setattr(self, name, getattr(self, f"_{name}"))
        if "sample" in offered:
            self.demos_sample_rows = self._sample_rows
        #: Tells the code of this model from another's (`demos_hpc.model.LoadedModel.source`).
        self.demos_source = glue.digest()
        self.demos_threads = self.threads

    def __repr__(self) -> str:
        return f"NativeModel({str(self._glue.library)!r}, threads={self.threads})"

    @property
    def threads(self) -> int:
        """Threads that share the rows of a call."""
        return int(self._c.demos_caller_threads(self._caller))

    # ---- making it ------------------------------------------------------------------------------------------

    def _make_table(self) -> Any:
        """The model's table of functions, checked."""
        ffi, c, glue = self._ffi, self._c, self._glue
        table = ffi.gc(ffi.new("demos_model *"), c.demos_end_model)
        if glue.functions:
            self._functions = self._find_functions()  # which has to live as long as the table
            table.size = ffi.sizeof("demos_model")
            status = c.demos_adapt(self._functions, table, self._error) or c.demos_check_model(
                table, table, self._error
            )
        else:
            address = _find_function(glue.library, "demos_model_init")
            if not address:
                raise InvalidInput(
                    f"{glue.library} has no demos_model_init(): write one, as demos.h says, or name its functions in a"
                    f' file, {{"library": "{glue.library}", "density": "my_density", ...}}, and serve that'
                )
            init = ffi.cast("demos_model_init_function", address)
            status = c.demos_init_model(init, json.dumps(glue.settings).encode(), table, self._error)
        if status:
            exception = EXCEPTION_OF[self._error.status]
            raise exception(f"the model of {glue.library}: {self._message()}")
        return table

    def _find_functions(self) -> Any:
        ffi, glue = self._ffi, self._glue
        functions = ffi.new("demos_functions *")
        functions.size = ffi.sizeof("demos_functions")
        for name in FUNCTIONS:
            if name not in glue.functions:
                continue
            address = _find_function(glue.library, glue.functions[name])
            if not address:
                raise InvalidInput(
                    f"{glue.path}: {name} is {glue.functions[name]!r}, and {glue.library} has no such function; Fortran"
                    ' compilers put an underscore behind names that have no bind(c), C++ needs extern "C"'
                )
            setattr(functions, name, ffi.cast(ffi.typeof(getattr(functions, name)), address))
        return functions

    def _read_spec(self, offered: list[str]) -> ModelSpec:
        """What the model and its description say, and what its flags mean for that."""
        ffi, table, glue = self._ffi, self._table, self._glue
        flags = _read_numbers(ffi, "demos_model_flag")
        own: Any = {}
        if table.spec:
            try:
                own = json.loads(ffi.string(table.spec).decode())
            except ValueError as error:
                raise ModelFailed(f"the spec in {glue.library} is no JSON: {error}") from None
        if not isinstance(own, dict):
            raise ModelFailed(f"the spec in {glue.library} is no object, {{...}}")
        promises = {
            "row_independent": flags["ROWS_DEPEND"],
            "params_per_row": flags["ONE_POINT"],
            "reproducible": flags["OWN_RANDOM"],
        }
        own |= {name: False for name, flag in promises.items() if table.flags & flag}
        if table.flags & flags["SINGLE"]:
            own.setdefault("notes", {"precision": "single"})
        spec = make_spec(
            glue, own, has_rows=any(name != "evaluate" for name in offered), has_outputs="evaluate" in offered
        )
        for name, flag in promises.items():
            if not getattr(spec, name):
                table.flags |= flag
        if glue.thread_safe:
            table.flags |= flags["THREAD_SAFE"]
        return spec

    def _open_caller(self, config: Config) -> Any:
        spec, ffi, glue = self.spec, self._ffi, self._glue
        caller = ffi.new("demos_caller **")
        sizes = spec.n_observables, spec.n_params, spec.n_outputs
        threads = glue.threads or config.threads
        status = self._c.demos_caller_open(self._table, *sizes, threads, caller, self._error)
        if status:
            raise EXCEPTION_OF[self._error.status](f"the model of {glue.library}: {self._message()}")
        opened = ffi.gc(caller[0], self._c.demos_caller_close)
        if (glue.threads or 1) > self._c.demos_caller_threads(opened):
            raise InvalidInput(
                f"{glue.path}: threads is {glue.threads}, and the model does not say that several threads may call it;"
                ' if they may, write "thread_safe": true, and otherwise start more workers'
            )
        return opened

    # ---- the methods of a model -----------------------------------------------------------------------------

    def _log_density(self, x: FloatArray, params: FloatArray) -> FloatArray:
        """x (n, d), params (p,) or (n, p) to (n,)."""
        x, params, stride = self._check_rows(x, params)
        value = np.empty(len(x))
        with self._lock:
            self._raise(
                self._c.demos_call_log_density(
                    self._caller, len(x), self._at(x), self._at(params), stride, self._at(value), self._error
                )
            )
        return value

    def _log_density_gradient(self, x: FloatArray, params: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Value (n,) and gradient with respect to params (n, p)."""
        return self._gradient(self._c.demos_call_log_density_gradient, self.spec.n_params, x, params)

    def _log_density_gradient_x(self, x: FloatArray, params: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Value (n,) and gradient with respect to x (n, d)."""
        return self._gradient(self._c.demos_call_log_density_gradient_x, self.spec.n_observables, x, params)

    def _gradient(self, call: Any, width: int, x: FloatArray, params: FloatArray) -> tuple[FloatArray, FloatArray]:
        x, params, stride = self._check_rows(x, params)
        value, gradient = np.empty(len(x)), np.empty((len(x), width))
        outputs = self._at(value), self._at(gradient)
        with self._lock:
            self._raise(call(self._caller, len(x), self._at(x), self._at(params), stride, *outputs, self._error))
        return value, gradient

    def _evaluate(self, params: FloatArray) -> FloatArray:
        """params (m, p) to (m, q)."""
        params = _lay(params, (len(params), self.spec.n_params), "params")
        out = np.empty((len(params), self.spec.n_outputs))
        with self._lock:
            self._raise(
                self._c.demos_call_evaluate(self._caller, len(params), self._at(params), self._at(out), self._error)
            )
        return out

    def _sample(self, n: int, params: FloatArray, rng: np.random.Generator) -> FloatArray:
        """n draws, (n, d), from the stream of ``rng``, which goes on behind them."""
        params = _lay(params, (self.spec.n_params,), "params")
        x = np.empty((n, self.spec.n_observables))
        stream = self._ffi.new("demos_stream *")
        state = self._take_stream(rng, stream)
        with self._lock:
            self._raise(self._c.demos_call_sample(self._caller, n, self._at(params), stream, self._at(x), self._error))
        if state is not None:
            self._give_back(rng, state, stream)
        return x

    def _sample_rows(self, first_row: int, n: int, params: FloatArray, seed: int) -> FloatArray:
        """Draws first_row to first_row + n of the sequence that ``seed`` names, (n, d): threads share the blocks."""
        params = _lay(params, (self.spec.n_params,), "params")
        x = np.empty((n, self.spec.n_observables))
        with self._lock:
            self._raise(
                self._c.demos_call_sample_rows(
                    self._caller, seed, first_row, n, self.spec.block_rows, self._at(params), self._at(x), self._error
                )
            )
        return x

    # ---- what they share ------------------------------------------------------------------------------------

    def _check_rows(self, x: FloatArray, params: FloatArray) -> tuple[FloatArray, FloatArray, int]:
        """The arrays as C has them, and how far the params of one row are from those of the next."""
        n, p = len(x), self.spec.n_params
        x = _lay(x, (n, self._n_rows), "x")
        if params.ndim == 1:
            return x, _lay(params, (p,), "params"), 0
        return x, _lay(params, (n, p), "params"), p

    def _at(self, array: FloatArray) -> Any:
        return self._ffi.from_buffer(self._pointer, array)

    def _message(self) -> str:
        text: bytes = self._ffi.string(self._error.message)
        return text.decode("utf-8", "replace")

    def _raise(self, status: int) -> None:
        if status:
            raise StatusError(status, self._message())

    def _take_stream(self, rng: np.random.Generator, stream: Any) -> dict[str, Any] | None:
        """Makes ``stream`` that of ``rng``, and returns its state; of another kind than Philox, one that it names."""
        state: Any = rng.bit_generator.state
        if state["bit_generator"] != "Philox":
            self._c.demos_stream_set(stream, int(rng.integers(1 << 64, dtype=np.uint64)), 0)
            return None
        stream.key = state["state"]["key"].tolist()
        stream.counter = state["state"]["counter"].tolist()
        stream.buffer = state["buffer"].tolist()
        stream.used = state["buffer_pos"]
        return dict(state)

    def _give_back(self, rng: np.random.Generator, state: dict[str, Any], stream: Any) -> None:
        state["state"] = {
            "key": np.array(list(stream.key), dtype=np.uint64),
            "counter": np.array(list(stream.counter), dtype=np.uint64),
        }
        state["buffer"] = np.array(list(stream.buffer), dtype=np.uint64)
        state["buffer_pos"] = int(stream.used)
        rng.bit_generator.state = state


def _lay(array: FloatArray, shape: tuple[int, ...], name: str) -> FloatArray:
    """The array as C may read it; one of another shape would lead it astray."""
    if array.shape != shape:
        raise StatusError(InvalidInput.status, f"{name} has shape {array.shape}; it is {shape}")
    return np.ascontiguousarray(array, dtype=np.float64)


@cache
def _load(path: str) -> tuple[Any, Any]:
    """The library of a model; it stays, since nobody can tell when the last of its threads has left it."""
    ffi = cffi.FFI()
    try:
        return ffi, ffi.dlopen(path, ffi.RTLD_NOW)
    except OSError as error:
        raise ModelFailed(f"the library {path} cannot be loaded: {error}; `ldd {path}` shows what it needs") from None


def _find_function(library: Path, name: str) -> int:
    """The address of a function, 0 where the library has none of that name."""
    ffi, loaded = _load(str(library.resolve()))
    try:
        ffi.cdef(f"void {name}(void);", override=True)
        return int(ffi.cast("uintptr_t", getattr(loaded, name)))
    except (AttributeError, cffi.CDefError):
        return 0
