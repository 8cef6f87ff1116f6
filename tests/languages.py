"""One Gaussian and one failing model in every language, and clients in every language that call them."""

from __future__ import annotations

import json
import runpy
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from compiling import CSRC, EXAMPLES, Mold, Workshop
from launching import analyze, serve, serve_spec

from demos_hpc.messages import FloatArray
from demos_hpc.mpiexec import Program

PROGRAMS = CSRC / "tests" / "languages"
CLIENT = PROGRAMS / "client.py"
LANGUAGES = ("python", "c", "cpp", "fortran")
#: What the answers of a Gaussian are, and how many numbers each has.
N = 2500
SIZES = {
    "widths": 3,
    "sample": N,
    "sample_later": 3,
    "log_density": N,
    "log_density_rows": N,
    "gradient_value": N,
    "gradient": 2 * N,
    "gradient_x_value": N,
    "gradient_x": N,
    "log_likelihood": 2,
    "log_likelihood_gradient": 4,
    "evaluate": 4,
    "defaults": 2,
    "refused": 1,
}
#: What a failing model does at which x.
ERROR, NAN, SLEEPS, SEGFAULTS, EXITS, LEAKS = map(str, range(2, 8))


class School:
    """Programs in every language; each is made when it is first asked for, in ``directory`` if it is but a file."""

    def __init__(self, workshop: Workshop, mold: Mold, directory: Path) -> None:
        self._workshop = workshop
        self._mold = mold
        self._directory = directory

    # ---- servers ----------------------------------------------------------------------------------------------------

    def find_model(self, language: str, model: str) -> str:
        """What Python serves: its own, or a plug-in."""
        if language == "plug-in":
            library = self._workshop.make(EXAMPLES / f"{model}.c")
            return self._workshop.describe(library, f"{model}.json", settings=_SETTINGS[model])
        return {"gaussian": "demos_hpc.testing:Gaussian", "failing": f"{PROGRAMS / 'failing.py'}:Failing"}[model]

    def make_server(self, language: str, model: str) -> list[str]:
        """The command of a program that serves a model."""
        if language == "c":
            program = self._workshop.link(PROGRAMS / "server.c", EXAMPLES / f"{model}.c")
            return [str(program), json.dumps(_SETTINGS[model])]
        if language == "cpp":
            return [str(self._workshop.link(PROGRAMS / f"{model}.cpp", compiler="c++"))]
        if model == "gaussian":
            place = EXAMPLES / "gaussian_fortran"
            return [str(self._mold.make(model, place / "gaussian.f90", place / "server.f90", mpi=True))]
        return [str(self._mold.make(model, PROGRAMS / f"{model}.f90", mpi=True))]

    def describe(self, model: str) -> Path:
        """A description that leaves everything to the program."""
        path = self._directory / f"{model}.json"
        path.write_text(json.dumps({"name": model}), encoding="utf-8")
        return path

    def serve(self, language: str, model: str, workers: int = 2) -> list[Program]:
        """The ranks of a launch that serve a model."""
        if language in ("python", "plug-in"):
            return [serve(self.find_model(language, model), 1 + workers)]
        return [serve_spec(self.describe(model)), Program(workers, self.make_server(language, model))]

    def name(self, language: str, model: str) -> list[str]:
        """The words that `demos-hpc serve` takes for a server of its own."""
        if language in ("python", "plug-in"):
            return [self.find_model(language, model)]
        program, *arguments = self.make_server(language, model)
        return ["--exec", program, *arguments]

    # ---- clients ----------------------------------------------------------------------------------------------------

    def make_client(self, language: str) -> list[str]:
        """The command of a client that is a program."""
        if language == "fortran":
            return [str(self._mold.make("client", PROGRAMS / "client.f90", mpi=True))]
        source = PROGRAMS / f"client.{language}"
        return [str(self._workshop.link(source, compiler="c++" if language == "cpp" else "cc"))]

    def call(self, language: str, answers: Path, *numbers: str) -> Program:
        """The rank of a launch that calls the model."""
        if language == "python":
            return analyze(CLIENT, "auto", str(answers), *numbers)
        return Program(1, [*self.make_client(language), str(answers), *numbers])

    def call_server(self, language: str, server: str, answers: Path, *numbers: str) -> list[str]:
        """The command that calls a server over TCP."""
        if language == "python":
            return [sys.executable, str(CLIENT), "tcp", str(answers), *numbers]
        ticket = [sys.executable, "-m", "demos_hpc", "ticket", "--transport", "tcp", server, "--"]
        return [*ticket, *self.make_client(language), str(answers), *numbers]


_SETTINGS: dict[str, dict[str, Any]] = {"gaussian": {}, "failing": {"mode": "numbered", "seconds": 3600}}


def collect(model: Any, draws: FloatArray | None = None) -> dict[str, FloatArray]:
    """The answers that clients should get, from a model in this process, to its own draws or others (n, 1)."""
    answers: Iterator[Any] = runpy.run_path(str(CLIENT))["collect"](model, draws)
    return {name: np.ravel(np.asarray(answer, dtype=float)) for name, answer in zip(SIZES, answers, strict=True)}


def read(path: Path) -> dict[str, FloatArray]:
    """The answers that a client got."""
    numbers = np.fromfile(path)
    assert len(numbers) == sum(SIZES.values()), path
    return dict(zip(SIZES, np.split(numbers, np.cumsum(list(SIZES.values()))[:-1]), strict=True))


def read_faults(path: Path) -> list[Sequence[float]]:
    """Status and value of each call with a row that may be at fault."""
    faults: list[Sequence[float]] = np.fromfile(path).reshape(-1, 2).tolist()
    return faults
