"""What does it cost to serve a function of C: as a plug-in of a Python worker, on threads, as a rank of its own?

    python benchmarks/native.py [--quick]

The function takes about 50 ns a row. Its peers are bare C loops over the same function, two bare processes at the same
moment, a Python worker with the same plug-in, and the same call by ctypes in the caller's process. The neutrino model
in C is compared with the one in NumPy, and with nuSQuIDS doing the same layers where that is installed.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
from harness import print_table, report
from stage import ANALYZE, HERE, PYTHON, SERVE, Program, alternate, compare, start_peer, time_together

from demos_hpc.config import Config
from demos_hpc.installation import find_installation
from demos_hpc.model import LoadedModel, load

NEUTRINO = HERE.parent / "csrc" / "examples" / "neutrino"
POINT = np.array([0.3, 1.7])
DESCRIPTION = {
    "library": "./libnative.so",
    "log_density": "wave_log_density",
    "thread_safe": True,
    "name": "wave",
    "parameters": [{"name": "mu", "default": 0.0}, {"name": "sigma", "default": 1.0, "lower": 0.01}],
    "observables": ["x"],
}
BARE = """
import ctypes, sys
import numpy as np
library = ctypes.CDLL(sys.argv[1])
n, times = map(int, sys.argv[2:])
x, point, out = np.random.default_rng(1).normal(size=(n, 1)), np.array([0.3, 1.7]), np.empty(n)
arguments = (ctypes.c_size_t(n), *(ctypes.c_void_p(array.ctypes.data) for array in (x, point, out)))
library.wave_loop(*arguments)
print("ready", flush=True)
sys.stdin.readline()
for _ in range(times):
    library.wave_loop(*arguments)
print("done", flush=True)
"""


class Workbench:
    """What is built for this benchmark, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.library = folder / "libnative.so"
        _compile("-O2", "-shared", "-fPIC", HERE / "native.c", "-o", self.library, "-lm")
        self.rank = folder / "native_rank"
        cflags, libs = find_installation(Config()).find_mpi()
        sources = HERE / "native_rank.c", HERE / "native.c"
        _compile("-O2", *cflags.split(), *sources, "-o", self.rank, *libs.split(), "-lm")
        self.neutrino = folder / "libneutrino.so"
        sources = [path for path in sorted(NEUTRINO.glob("*.c")) if path.stem not in ("test_neutrino", "server")]
        installed = find_installation(Config())
        options = "-O3", "-fno-math-errno", "-ffp-contract=off", "-shared", "-fPIC", "-fvisibility=hidden"
        _compile(*options, *installed.cflags.split(), *sources, "-o", self.neutrino, *installed.libs.split(), "-lm")
        self.model = self.describe("wave")
        self._c = ctypes.CDLL(str(self.library))

    def describe(self, function: str) -> Path:
        path = self.folder / f"{function}.json"
        path.write_text(json.dumps({**DESCRIPTION, "log_density": f"{function}_log_density"}), encoding="utf-8")
        return path

    def load(self, function: str, threads: int = 1) -> LoadedModel:
        return load(str(self.describe(function)), Config(threads=threads))

    def make_loop(self, function: str, x: np.ndarray) -> Callable[[], float]:
        """Runs the bare loop over all rows; seconds."""
        out = np.empty(len(x))
        loop = getattr(self._c, f"{function}_loop")
        arguments = (ctypes.c_size_t(len(x)), *(ctypes.c_void_p(array.ctypes.data) for array in (x, POINT, out)))
        return lambda: _clock(lambda: loop(*arguments) or out)  # which has to live as long


def _compile(*words: object) -> None:
    subprocess.run(["cc", *map(str, words)], check=True)


def _clock(run: Callable[[], object]) -> float:
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds; about half a minute")
    parser.add_argument("--nusquids", default=sys.executable, help="a Python that has nuSQuIDS")
    arguments = parser.parse_args()
    rounds = 7 if arguments.quick else 25
    with tempfile.TemporaryDirectory() as folder:
        bench = Workbench(Path(folder))
        figures = measure_plugin(bench, rounds) | measure_threads(bench, rounds) | measure_ranks(bench, rounds)
        figures |= measure_neutrino(bench, rounds, arguments.nusquids)
    report("native", figures)


def measure_plugin(bench: Workbench, rounds: int) -> dict[str, float]:
    """A plug-in as a worker calls it, and the bare loop."""
    x = np.random.default_rng(1).normal(size=(1_000_000, 1))
    figures, rows = {}, []
    for function in ("wave", "bare"):
        model = bench.load(function)
        served, bare = alternate(
            rounds, lambda model=model: _clock(lambda: model.log_density(x, POINT)), bench.make_loop(function, x)
        )
        ratio = compare(served, bare)
        extra = median(a - b for a, b in zip(served, bare, strict=True)) / len(x) * 1e9
        alone = median(bare) / len(x) * 1e9
        rows.append((function, f"{alone:.2f}", f"{extra:+.2f}", *(f"{part:.3f}" for part in ratio)))
        figures[function] = ratio[0], ratio[2], extra
    print_table(["a row of", "bare loop (ns)", "served (ns more)", "ratio", "quartile", "quartile"], rows)
    return {
        "plugin_vs_c_loop": figures["wave"][0],
        "plugin_vs_c_loop_upper": figures["wave"][1],
        "scalar_overhead_ns": figures["bare"][2],
    }


def measure_threads(bench: Workbench, rounds: int) -> dict[str, float]:
    """Two threads of one worker, and two bare processes with half of the work each."""
    n, times = 1_000_000, 10
    x = np.random.default_rng(1).normal(size=(2 * n, 1))
    model = bench.load("wave", threads=2)
    command = [*PYTHON, "-c", BARE, str(bench.library), str(n), str(times)]
    bare, threaded = alternate(
        rounds,
        lambda: time_together([command] * 2, cwd=HERE),
        lambda: _clock(lambda: [model.log_density(x, POINT) for _ in range(times)]),
    )
    share, low, high = compare(bare, threaded)
    print_table(
        ["2,000,000 rows, 10 times", "ms"],
        [("two bare processes", f"{median(bare) * 1e3:.0f}"), ("two threads", f"{median(threaded) * 1e3:.0f}")],
    )
    print(f"share {share:.3f}, quartiles {low:.3f} to {high:.3f}")
    return {"speedup_2_threads": share}


def measure_ranks(bench: Workbench, rounds: int) -> dict[str, float]:
    """A rank in C and a Python worker, called from Python; and the function called in the caller's own process."""
    client = Program(1, [*ANALYZE, str(HERE / "native_client.py"), str(bench.library)])
    in_c = Program(1, [*SERVE, "--spec", str(bench.model)]), Program(1, [str(bench.rank)])
    with (
        start_peer("rank in C", *in_c, client) as rank,
        start_peer("Python worker", Program(2, [*SERVE, str(bench.model)]), client) as python,
    ):
        trips = alternate(
            rounds, lambda: rank.ask("serve", n=1, times=1000), lambda: python.ask("serve", n=1, times=1000)
        )
        large = [lambda peer=peer: peer.ask("serve", n=1_000_000, times=3) for peer in (rank, python)]
        by_rank, by_python, here = alternate(rounds, *large, lambda: rank.ask("call", n=1_000_000, times=3))
    trip, rank_ratio, python_ratio = compare(*trips), compare(by_rank, here), compare(by_python, here)
    print_table(
        ["served by", "one row (us)", "1,000,000 rows (ms)", "against ctypes", "quartiles"],
        [
            (name, f"{median(one) * 1e6:.1f}", f"{median(many) * 1e3:.1f}", f"{r[0]:.3f}", f"{r[1]:.3f} to {r[2]:.3f}")
            for name, one, many, r in (
                ("rank in C", trips[0], by_rank, rank_ratio),
                ("Python worker", trips[1], by_python, python_ratio),
            )
        ],
    )
    print(f"one row: C over Python {trip[0]:.3f}, quartiles {trip[1]:.3f} to {trip[2]:.3f}")
    return {
        "c_rank_vs_python_worker": trip[0],
        "served_vs_ctypes": max(rank_ratio[0], python_ratio[0]),
        "c_rank_vs_ctypes": rank_ratio[0],
        "python_worker_vs_ctypes": python_ratio[0],
    }


def measure_neutrino(bench: Workbench, rounds: int, nusquids: str) -> dict[str, float]:
    """The neutrino model in C and in NumPy, at a new point each time; and its oscillations alone."""
    ours, theirs = load(str(bench.neutrino)), load("nu_atm")
    point = theirs.spec.defaults.copy()
    x = theirs.sample(0, 3000, point, 1)

    def call(model: LoadedModel, method: str) -> float:
        point[0] += 1e-7
        return _clock(lambda: getattr(model, method)(x, point))

    figures, rows = {}, []
    for method, key in (
        ("log_density", "neutrino_c_vs_numpy"),
        ("log_density_gradient", "neutrino_gradient_c_vs_numpy"),
    ):
        seconds = alternate(rounds, *(lambda model=m, method=method: call(model, method) for m in (theirs, ours)))
        ratio = compare(*seconds)
        figures[key] = ratio[0]
        times = (f"{median(column) * 1e3:.2f}" for column in seconds)
        rows.append((f"{method}, 3,000 rows", *times, f"{ratio[0]:.1f}", f"{ratio[1]:.1f} to {ratio[2]:.1f}"))
    print_table(["nu_atm", "NumPy (ms)", "C (ms)", "ratio", "quartiles"], rows)
    peer = subprocess.run(
        [nusquids, str(HERE / "nusquids_peer.py"), str(bench.neutrino)], stdout=subprocess.PIPE, text=True, check=False
    )
    if peer.returncode:
        print("nuSQuIDS is not there: --nusquids names a Python that has it (pip install nuSQuIDS)")
        return figures
    told = json.loads(peer.stdout.splitlines()[-1])
    print_table(
        [f"{told['tracks']:,} tracks, castle wall", "s"],
        [("C", f"{told['ours']:.4f}"), ("nuSQuIDS, constant densities", f"{told['theirs']:.2f}")],
    )
    print(f"largest difference of a probability: {told['difference']:.1e}")
    return figures | {"oscillations_c_vs_nusquids": told["theirs"] / told["ours"]}


if __name__ == "__main__":
    sys.exit(main())
