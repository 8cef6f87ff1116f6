"""The peer: emcee over UM-Bridge, whose model holds the rows; 64 points are 64 calls over HTTP, several at a time."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import emcee
import h5py
import numpy as np
import umbridge
from models import Normal
from stage import answer
from umbridge_peer import wait_until_up

CALLS_AT_A_TIME = 4


class Held(umbridge.Model):
    """The likelihood of the rows in a file; its input is a parameter point."""

    def __init__(self, path: str) -> None:
        super().__init__("forward")
        self._model = Normal()
        with h5py.File(path) as file:
            self._rows = file["x"][()]

    def get_input_sizes(self, config: dict[str, object]) -> list[int]:
        return [2]

    def get_output_sizes(self, config: dict[str, object]) -> list[int]:
        return [1]

    def __call__(self, parameters: list[list[float]], config: dict[str, int]) -> list[list[float]]:
        rows = self._rows[: config["rows"]]
        return [[float(self._model.log_density(rows, np.array(parameters[0])).sum())]]

    def supports_evaluate(self) -> bool:
        return True


def walk(steps: int, rows: int) -> float:
    """Seconds for 64 walkers to take so many steps, in a likelihood of so many rows."""
    with ThreadPoolExecutor(CALLS_AT_A_TIME) as threads:

        def log_likelihood(points: np.ndarray) -> np.ndarray:
            return np.array(list(threads.map(lambda point: model([point.tolist()], {"rows": rows})[0][0], points)))

        sampler = emcee.EnsembleSampler(64, 2, log_likelihood, vectorize=True)
        start = np.random.default_rng(5).normal(0.0, 0.01, (64, 2))
        sampler.run_mcmc(start, 2)
        begin = time.perf_counter()
        sampler.run_mcmc(start, steps)
        return time.perf_counter() - begin


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        umbridge.serve_models([Held(sys.argv[3])], int(sys.argv[2]), max_workers=2)
    else:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        command = [sys.executable, __file__, "serve", str(port), sys.argv[2]]
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ)
        try:
            wait_until_up(f"http://127.0.0.1:{port}", server)
            model = umbridge.HTTPModel(f"http://127.0.0.1:{port}", "forward")
            answer({"walk": walk})
        finally:
            server.terminate()
            server.wait()
