"""What `lifecycle` has the testbed's users run.

lifecycle_peer.py fit NAME CALLS                  a fit that says how far it is, and where it ended
lifecycle_peer.py watch NAME                      tells what the server counts
lifecycle_peer.py job NAME CALLS AT_ONCE FOLDER   one analysis of many, begun when all are told to
    lifecycle_peer.py job-alone CALLS                 the same without a server
"""

from __future__ import annotations

import getpass
import os
import sys
import time
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np
from overhead_peer import EVENTS, FREE, search
from stage import answer

import demos_hpc
from demos_hpc.config import Config
from demos_hpc.model import load
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

        print_end(*search(log_likelihood, model.spec.defaults.copy(), int(calls)))


def fit_alone(calls: str) -> None:
    log_likelihood, start = load_alone()
    print_end(*search(log_likelihood, start, int(calls)))


def print_end(value: float, point: np.ndarray) -> None:
    print(*(number.hex() for number in (value, *point.tolist())))


def load_alone() -> tuple[Callable[[np.ndarray], float], np.ndarray]:
    """The same log-likelihood computed in this process, and where it begins."""
    model = load("nu_atm")
    start = model.spec.defaults.copy()
    events = model.sample(0, EVENTS, start, 1)
    return lambda point: float(model.log_density(events, point).sum()), start


def watch(name: str) -> None:
    config = Config.load()
    with reach(name, Registry(config.registry_directory), config) as operator:
        answer({"look": operator.statistics})


def analyze(name: str, calls: str, at_once: str, folder: str) -> None:
    """So many likelihoods, some of them in flight at a time; leaves what they took, and what they were."""
    with demos_hpc.connect(name, timeout=PATIENCE) as model:
        events, points = model.sample(EVENTS, seed=1), make_points(model.spec.defaults, int(calls))
        while not Path(folder, "go").exists():
            time.sleep(LOOK)
        begin = time.perf_counter()
        futures, values = [], []
        for point in points:
            if len(futures) == int(at_once):
                values.append(futures.pop(0).result())
            futures.append(model.submit.log_likelihood(events, point))
        values += [future.result() for future in futures]
    path = Path(folder, f"{getpass.getuser()}-{os.environ['SLURM_JOB_ID']}.partial")
    path.write_text(f"{time.perf_counter() - begin:.3f} {name_values(values)}", encoding="utf-8")
    path.rename(path.with_suffix(".done"))


def analyze_alone(calls: str) -> None:
    log_likelihood, start = load_alone()
    print(name_values([log_likelihood(point) for point in make_points(start, int(calls))]))


def make_points(start: np.ndarray, calls: int) -> np.ndarray:
    """Points all different, so that each has to be computed, (calls, 10)."""
    points = np.tile(start, (calls, 1))
    points[:, FREE[0]] += 1e-4 * np.arange(calls)
    return points


def name_values(values: Sequence[float]) -> str:
    """Differs where a bit of them does."""
    return sha256(np.array(values).tobytes()).hexdigest()


COMMANDS = {"fit": fit, "fit-alone": fit_alone, "watch": watch, "job": analyze, "job-alone": analyze_alone}

if __name__ == "__main__":
    COMMANDS[sys.argv[1]](*sys.argv[2:])
