"""The measuring side of `clients`: one process with several connections, each of which has requests in flight."""

from __future__ import annotations

import contextlib
import sys
import time

import numpy as np
from models import Normal
from stage import answer

import demos_hpc

local = Normal()


def measure(n_clients: int, n_requests: int, in_turn: bool) -> dict[str, float]:
    """Begin and end of ``n_requests`` single rows on so many connections, seconds of a clock that all processes share.

    ``in_turn``: a connection's next request is sent when its last one is answered.
    """
    rng = np.random.default_rng(2)
    x, params = rng.normal(size=(n_requests, 1, 8)), rng.normal(size=(n_requests, 2))
    callers = models[:n_clients]
    futures = []
    begin = time.monotonic()
    for i in range(n_requests):
        futures.append([model.submit.log_density(x[i], params[i]) for model in callers])
        if in_turn:
            for future in futures[-1]:
                future.result()
    values = np.array([[future.result()[0] for future in row] for row in futures])
    end = time.monotonic()
    assert np.array_equal(values, np.repeat(local.log_density(x[:, 0], params)[:, np.newaxis], n_clients, axis=1))
    return {"begin": begin, "end": end}


with contextlib.ExitStack() as stack:
    models = [stack.enter_context(demos_hpc.connect(transport=sys.argv[1])) for _ in range(int(sys.argv[2]))]
    answer({"measure": measure})
