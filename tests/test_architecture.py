"""The house holds: who imports whom, who may import what from outside, and what nobody does."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import demos_hpc

PACKAGE = Path(demos_hpc.__file__).parent
TESTS = Path(__file__).parent

#: A module imports from the floors below its own, and from those before it on its own floor.
FLOORS: dict[str, tuple[str, ...]] = {
    "0 words": ("errors", "version"),
    "1 what is said": (
        "messages", "greetings", "streams", "config", "events", "shares", "fingerprint", "verdict", "threads",
        "watchdog", "children", "pump", "mpiexec", "identity", "munge", "budgets", "access", "audit", "certificates",
        "descriptors", "shared_files", "logs", "journal", "selection", "runs", "progress", "elements",
        "sources", "chunk_cache", "reference", "host",
        "definition", "sif", "image_policy", "image_run", "software",
    ),
    "2 wire and model": (
        "wire", "blocks", "spec", "model_paths", "glue", "installation", "scaffold", "model", "cost", "quadrature",
        "starter", "image_labels",
    ),
    "3 brain": (
        "queues", "pool", "deadlines", "scheduler", "placement", "plan", "data_plan", "resident_plan",
        "served", "relay", "arguments", "differences", "future", "desk",
        "adapters", "hdf5_format", "datasets", "hdf5", "tables", "library", "direct_data", "segments",
        "uploads", "residents", "endpoint", "registry", "revisions", "histogram", "counters", "usage", "metrics",
        "cache", "exposition", "job_notes", "slurm_plan", "needs", "cluster", "autoscaling",
        "answers", "columns", "row_files", "result_files", "writing",
    ),
    "4 transport": (
        "transport", "transport.buffers", "transport.doorbell", "transport.loopback", "transport.mpi",
        "transport.inflow", "transport.compression", "transport.patience", "transport.tuning", "transport.tcp",
        "transport.pair", "transport.shared", "transport.joined", "peers", "refusals", "stalls", "calls",
        "catalog", "chronicle", "accounts", "recall", "intake", "door", "upgrade", "scribe", "presence",
        "native", "slurm", "billing",
    ),
    "5 worker and client": (
        "dialing", "spool", "stock", "worker", "connection", "remote_data", "resident_data", "operating",
        "survey", "recovery", "tracing", "submit", "likelihood",
        "samplers", "client", "launch",
        "orders",
    ),
    "6 dispatcher": ("dispatcher", "reception", "joining", "handover"),
    "7 what they are used for": (
        "calling", "local", "server", "supervisor", "crew", "programs", "subject", "checks", "density_checks",
        "sampler_checks", "testing", "models", "models.detector", "models.earth", "models.oscillation",
        "models.event_rates", "models.neutrino", "models.data",
        "demo", "plots",
    ),
    "8 command line": (
        "diagnosis", "pingpong", "mpi_checks", "doctor", "bench", "bench_plots", "containers", "cli.output",
        "cli.quantities", "cli.interruption",
        "cli.rates", "cli.dashboard", "cli.arrays", "cli.confining",
        "cli.group", "cli.operators", "cli.watching", "cli.servers",
        "cli.launches", "cli.jobs", "cli.batch", "cli.scaling", "cli.usage",
        "cli.choice", "cli.brackets", "cli.datasets", "cli.examination", "cli.compiling",
        "cli.figures", "cli.results", "cli.images",
        "cli.operations", "cli.exports", "cli.data", "cli", "cli.rank",
        "__main__",
    ),
    "9 front door": ("",),
}  # fmt: skip
ORDER = [module for floor in FLOORS.values() for module in floor]

#: Packages that one module each may import, if any does.
HOMES: dict[str, str | None] = {
    "mpi4py": "transport.mpi", "h5py": "hdf5_format", "hdf5plugin": "hdf5_format", "cffi": "native",
    "spython": "containers", "cryptography": "certificates",
    "zstandard": "transport.compression", "prometheus_client": "exposition",
}  # fmt: skip

#: What could run code that a peer or a file has sent.
DANGEROUS_MODULES = {"pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}
DANGEROUS_NAMES = {"eval", "exec"}
#: Methods of mpi4py's communicators that pickle.
PICKLING = {
    "send", "recv", "isend", "irecv", "bsend", "ssend", "sendrecv", "bcast", "gather", "scatter", "allgather",
    "alltoall", "reduce", "allreduce", "scan", "exscan", "mprobe",
}  # fmt: skip
LONGEST_MODULE = 400


def find_modules() -> dict[str, Path]:
    """Every module of the package by its name within it; "" is the package itself."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = find_modules()
by_module = pytest.mark.parametrize("module", sorted(MODULES), ids=lambda module: module or "demos_hpc")


@cache
def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def find_imports(module: str) -> Iterator[str]:
    """Full names of all that a module imports, wherever in it, names and not only modules."""
    path = MODULES[module]
    name = ".".join(filter(None, ["demos_hpc", module]))
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            start = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{start}.{alias.name}" for alias in node.names)


def find_own_imports(module: str) -> set[str]:
    """The modules of this package that a module imports."""
    own = set()
    for name in find_imports(module):
        if name.split(".")[0] == "demos_hpc":
            inside = name.partition(".")[2]
            while inside not in MODULES:
                inside = inside.rpartition(".")[0]
            own.add(inside)
    return own


def test_every_module_has_its_place() -> None:
    assert len(set(ORDER)) == len(ORDER)
    homeless, gone = sorted(set(MODULES) - set(ORDER)), sorted(set(ORDER) - set(MODULES))
    assert not homeless, f"put {', '.join(homeless)} on a floor of FLOORS"
    assert not gone, f"take {', '.join(gone)} out of FLOORS"


@by_module
def test_modules_import_from_below_only(module: str) -> None:
    place = ORDER.index(module)
    above = sorted(name for name in find_own_imports(module) if ORDER.index(name) >= place)
    assert not above, f"{module} imports {', '.join(above)}, which stand above it or beside it"


@pytest.mark.parametrize("package", HOMES)
def test_packages_of_others_have_one_home(package: str) -> None:
    importers = [m for m in MODULES if any(name.split(".")[0] == package for name in find_imports(m))]
    home = HOMES[package]
    assert len(importers) <= 1 if home is None else importers == [home]


@by_module
def test_nothing_that_runs_what_was_sent(module: str) -> None:
    assert not {name.split(".")[0] for name in find_imports(module)} & DANGEROUS_MODULES
    for node in ast.walk(parse(MODULES[module])):
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name):
                assert node.func.id not in DANGEROUS_NAMES, f"line {node.lineno} calls {node.func.id}"
            for keyword in node.keywords:
                if keyword.arg == "allow_pickle":
                    assert isinstance(keyword.value, ast.Constant), f"line {node.lineno}"
                    assert keyword.value.value is False, f"line {node.lineno}"


def test_mpi_messages_are_raw_buffers() -> None:
    for node in ast.walk(parse(MODULES["transport.mpi"])):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in PICKLING:
            receiver = ast.unparse(node.func.value)
            assert "comm" not in receiver.lower(), f"line {node.lineno}: {receiver}.{node.func.attr} pickles"
            assert "group" not in receiver.lower(), f"line {node.lineno}: {receiver}.{node.func.attr} pickles"


@by_module
def test_settings_are_read_in_one_place(module: str) -> None:
    if module == "config":
        return
    for node in ast.walk(parse(MODULES[module])):
        keys: list[ast.expr] = []
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load):
            keys = [node.slice]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in ("get", "getenv", "pop"):
            keys = node.args[:1]
        for key in keys:
            is_text = isinstance(key, ast.Constant) and isinstance(key.value, str)
            assert not (is_text and key.value.startswith("DEMOS_")), f"line {key.lineno} reads {ast.unparse(key)}"


@by_module
def test_modules_are_described_and_short(module: str) -> None:
    path = MODULES[module]
    assert ast.get_docstring(parse(path)), "no docstring"
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST_MODULE


@by_module
def test_errors_are_not_swallowed(module: str) -> None:
    for node in ast.walk(parse(MODULES[module])):
        if isinstance(node, ast.ExceptHandler):
            is_broad = node.type is None or ast.unparse(node.type) in ("Exception", "BaseException")
            is_silent = all(isinstance(statement, ast.Pass | ast.Continue) for statement in node.body)
            assert not (is_broad and is_silent), f"line {node.lineno} swallows every error"


@pytest.mark.parametrize("module", [m for floor in list(FLOORS)[:7] for m in FLOORS[floor]])
def test_a_library_does_not_exit(module: str) -> None:
    calls = [node.func for node in ast.walk(parse(MODULES[module])) if isinstance(node, ast.Call)]
    exits = {ast.unparse(call) for call in calls} & {"sys.exit", "exit", "quit", "os._exit"}
    assert exits <= ({"os._exit"} if module == "launch" else set())  # an aborted launch ends its processes


def test_importing_the_package_does_not_touch_mpi() -> None:
    code = """if True:
        import sys
        import demos_hpc, demos_hpc.testing, demos_hpc.models.neutrino, demos_hpc.cli, demos_hpc.worker
        demos_hpc.local(demos_hpc.testing.Gaussian()).log_density([[0.0]])
        print(sorted(name for name in sys.modules if name.split(".")[0] in ("mpi4py", "h5py", "cffi", "spython")))
    """
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=PACKAGE.parent)
    assert done.stderr == ""
    assert done.stdout == "[]\n"


def test_tests_do_not_sleep_in_order_to_wait() -> None:
    for path in TESTS.rglob("*.py"):
        for node in ast.walk(parse(path)):
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func)
                assert name not in ("time.sleep", "sleep"), f"{path}, line {node.lineno}, sleeps"
