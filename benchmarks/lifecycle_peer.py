"""What `lifecycle` has the testbed's users run.

lifecycle_peer.py fit NAME CALLS                  a fit that says how far it is, and where it ended
lifecycle_peer.py watch NAME                      tells what the server counts
lifecycle_peer.py job NAME CALLS AT_ONCE FOLDER   one analysis of many, begun when all are told to
"""

from __future__ import annotations

import getpass
import os
import sys
import time
from pathlib import Path

import numpy as np
from overhead_peer import EVENTS, search
from stage import answer

import demos_hpc
from demos_hpc.config import Config
from demos_hpc.registry import Registry
from demos_hpc.survey import reach

#: Seconds for a call, a requeue included.
PATIENCE = 240.0
LOOK = 0.05


def fit(name: str, calls: str) -> None:
    """A line for each call, and then the end of the fit."""
    with demos_hpc.connect(name, reconnect=True, timeout=PATIENCE) as model:
        events = model.sample(EVENTS, seed=1)

        def log_likelihood(point: np.ndarray) -> float:
            value = model.log_likelihood(events, point)
            print(flush=True)
            return value

        value, point = search(log_likelihood, model.spec.defaults.copy(), int(calls))
    print(*(number.hex() for number in (value, *point.tolist())))


def watch(name: str) -> None:
    config = Config.load()
    with reach(name, Registry(config.registry_directory), config) as operator:
        answer({"look": operator.statistics})


def analyze(name: str, calls: str, at_once: str, folder: str) -> None:
    """So many likelihoods, some of them in flight at a time; leaves their value, and what it took."""
    with demos_hpc.connect(name, timeout=PATIENCE) as model:
        events = model.sample(EVENTS, seed=1)
        while not Path(folder, "go").exists():
            time.sleep(LOOK)
        begin = time.perf_counter()
        futures, values = [], set()
        for _ in range(int(calls)):
            if len(futures) == int(at_once):
                values.add(futures.pop(0).result())
            futures.append(model.submit.log_likelihood(events))
        values |= {future.result() for future in futures}
    words = [f"{time.perf_counter() - begin:.3f}", *(value.hex() for value in values)]
    path = Path(folder, f"{getpass.getuser()}-{os.environ['SLURM_JOB_ID']}")
    path.with_suffix(".partial").write_text(" ".join(words), encoding="utf-8")
    path.with_suffix(".partial").rename(path.with_suffix(".done"))


if __name__ == "__main__":
    {"fit": fit, "watch": watch, "job": analyze}[sys.argv[1]](*sys.argv[2:])
