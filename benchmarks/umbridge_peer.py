"""The peer: UM-Bridge, a server and a client that talk HTTP on this host."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import numpy as np
import umbridge
from models import Normal
from stage import answer


class Served(umbridge.Model):
    """The same model; its input is x, flattened, then params."""

    def __init__(self) -> None:
        super().__init__("forward")
        self._model = Normal()

    def get_input_sizes(self, config: dict[str, object]) -> list[int]:
        return [8, 2]

    def get_output_sizes(self, config: dict[str, object]) -> list[int]:
        return [1]

    def __call__(self, parameters: list[list[float]], config: dict[str, object]) -> list[list[float]]:
        x, params = np.array(parameters[0]).reshape(-1, 8), np.array(parameters[1])
        return [self._model.log_density(x, params).tolist()]

    def supports_evaluate(self) -> bool:
        return True


def measure(n: int, times: int) -> float:
    """Seconds a call of n rows."""
    x, params = np.random.default_rng(1).normal(size=(n, 8)), [0.0, 0.0]
    start = time.perf_counter()
    for _ in range(times):
        value = model([x.ravel().tolist(), params])
    spent = time.perf_counter() - start
    assert np.allclose(value[0], Normal().log_density(x, np.zeros(2)))
    return spent / times


def wait_until_up(url: str, server: subprocess.Popen[bytes]) -> None:
    """Asks until the server answers; it has no other way to say that it is ready."""
    end = time.monotonic() + 60
    while time.monotonic() < end and server.poll() is None:
        with contextlib.suppress(urllib.error.URLError), urllib.request.urlopen(url + "/Info", timeout=5):
            return
    raise RuntimeError("the UM-Bridge server has not started")


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        umbridge.serve_models([Served()], int(sys.argv[2]), max_workers=1)
    else:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        command = [sys.executable, __file__, "serve", str(port)]
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ)
        try:
            wait_until_up(f"http://127.0.0.1:{port}", server)
            model = umbridge.HTTPModel(f"http://127.0.0.1:{port}", "forward")
            answer({"measure": measure})
        finally:
            server.terminate()
            server.wait()
