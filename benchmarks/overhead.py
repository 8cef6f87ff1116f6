"""What do dispatcher, scheduler and container cost: the same fit in each layer, and a machine bare and contained?

    python benchmarks/overhead.py [--quick] [--image server.sif] [--json FILE] [--docs] [--from FILE]

On the testbed (tests/testbed/testbed up), as root; what is measured runs as its user, by the same interpreter and the
same NumPy bare and in the image, which is built unless one is given. All layers are there at the same time, asleep but
for the one that is asked, and take turns in one run. They have to find the same end of the fit, to the last bit.

``--json`` keeps what was found, ``--docs`` writes it into docs/overhead.md with its picture; ``--from`` takes it from
such a file instead of measuring.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from harness import describe_machine, print_table, report
from overhead_docs import LAYERS, STEPS, write_docs
from stage import Peer, alternate, compare
from testbed import Yard, finish, is_up, open_yard

#: Calls of a fit, and bytes of arrays and files: beyond what caches hold.
CALLS, ARRAY, FILE = 40, 128 << 20, 64 << 20
#: Bytes of messages, and how many there are in a turn.
SMALL, LARGE = (8, 2000), (4 << 20, 50)
SMALL_FILES = 200
#: Processes that are compared, and launches of two ranks, of each side.
PROCESSES, LAUNCHES = 5, 2
LOOK = 0.02


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds; about two minutes")
    parser.add_argument("--image", type=Path, help="server.sif; else one is built")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where all that was found is kept")
    parser.add_argument("--docs", action="store_true", help="write table and picture of docs/overhead.md")
    parser.add_argument("--from", dest="source", type=Path, metavar="FILE", help="what was kept; nothing is measured")
    arguments = parser.parse_args()
    if arguments.source:
        found = json.loads(arguments.source.read_text(encoding="utf-8"))
    elif not is_up():
        report("overhead", {})
        return
    else:
        with open_yard(arguments.image) as yard:
            found = measure(yard, quick=arguments.quick)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    if arguments.docs:
        write_docs(found)
    show(found)
    report("overhead", make_figures(found))


def measure(yard: Yard, *, quick: bool) -> dict[str, Any]:
    found: dict[str, Any] = {"machine": describe_machine()}
    found |= compare_machine(yard, 9 if quick else 25)
    layers = measure_layers(yard, 5, starts=1 if quick else 4)
    found |= {"end": layers.pop("end"), "layers": layers}
    found["steps"] = measure_steps(yard, 3 if quick else 5)
    return found


# ---- the same fit in each layer -----------------------------------------------------------------------------------


def start_layer(yard: Yard, layer: str) -> contextlib.AbstractContextManager[Peer]:
    """The measuring process of a layer, and all that it takes."""
    script = str(yard.place / "measuring" / "overhead_peer.py")
    inside = yard.contain() if layer.startswith("image") else []
    alone = ["python", script, "plain"]
    serve, call = ["python", "-m", "demos_hpc", "serve", "nu_atm"], ["python", "-m", "demos_hpc", script, "served"]
    world = ["mpiexec", "-n", "2", *inside, *serve, ":", "-n", "1", *inside, *call]
    match layer:
        case "plain" | "image_plain":
            return yard.start_peer(layer, [*inside, *alone])
        case "world" | "image_world":
            return yard.start_peer(layer, world)
        case "slurm_world":
            return yard.start_peer(layer, world, job=(1, 3))
        case "slurm_nodes" | "image_slurm_nodes":
            return yard.start_peer(layer, world, job=(2, 3))
        case "door" | "image_door":
            return start_door(yard, layer, [*inside, *serve, "--workers", "1", "--name", layer], script)
    raise ValueError(layer)


@contextlib.contextmanager
def start_door(yard: Yard, name: str, serve: Sequence[str], script: str) -> Iterator[Peer]:
    """A server of its own; who calls it is never in an image."""
    server = yard.start(*serve)
    try:
        while not any(f'"{name}"' in path.read_text(encoding="utf-8") for path in list_entries(yard)):
            if server.poll() is not None:
                finish(server)
            time.sleep(LOOK)
        with yard.start_peer(name, ["python", script, "served", name]) as peer:
            yield peer
    finally:
        yard.run("demos-hpc", "stop", name, "--wait")
        finish(server)


def list_entries(yard: Yard) -> Iterator[Path]:
    return (yard.place / "registry").glob("*.json")


def measure_layers(yard: Yard, rounds: int, starts: int) -> dict[str, Any]:
    """Each layer started so often, and the fit done so many times in each of its starts, the layers in turn."""
    seconds: dict[str, list[float]] = {layer: [] for layer in LAYERS}
    fits: dict[str, list[float]] = {layer: [] for layer in LAYERS}
    trips: dict[str, list[float]] = {layer: [] for layer in LAYERS if "plain" not in layer}
    ends = set()
    for _ in range(starts):
        with contextlib.ExitStack() as stack:
            peers = {}
            for layer in LAYERS:
                begin = time.perf_counter()
                peers[layer] = stack.enter_context(start_layer(yard, layer))
                peers[layer].ask("fit", calls=1)
                seconds[layer].append(time.perf_counter() - begin)
            ends |= {tuple(peer.ask("fit", calls=CALLS)["end"]) for peer in peers.values()}
            if len(ends) != 1:
                raise AssertionError(f"the layers do not agree on the end of the fit: {ends}")
            asked = alternate(rounds, *(lambda peer=p: peer.ask("fit", calls=CALLS)["seconds"] for p in peers.values()))
            for layer, column in zip(peers, asked, strict=True):
                fits[layer] += column
            served = [peers[layer] for layer in trips]
            asked = alternate(rounds, *(lambda peer=p: peer.ask("trip", times=300) for p in served))
            for layer, column in zip(trips, asked, strict=True):
                trips[layer] += column
    found: dict[str, Any] = {"end": ends.pop()[0]}
    for layer, column in fits.items():
        found[layer] = {
            "fit_s": median(column),
            "ratio": compare(column, fits["plain"]),
            "more_us": median(a - b for a, b in zip(column, fits["plain"], strict=True)) / CALLS * 1e6,
            "start_s": median(seconds[layer]),
        } | ({"trip_us": median(trips[layer]) * 1e6} if layer in trips else {})
    return found


# ---- a machine, bare and contained --------------------------------------------------------------------------------


def compare_machine(yard: Yard, rounds: int) -> dict[str, Any]:
    """Times of an image over those without one, in turns."""
    files = yard.place / "files"
    script = str(yard.place / "measuring" / "overhead_peer.py")
    with contextlib.ExitStack() as stack:

        def start(name: str, words: Sequence[str], **how: Any) -> Peer:
            return stack.enter_context(yard.start_peer(name, words, **how))

        inside = yard.contain("--writable", str(files))
        alone = ["python", script, "plain"]
        # Several, since how memory happens to lie makes one process faster than another for as long as it lives.
        bare = [start("bare", alone) for _ in range(PROCESSES)]
        contained = [start("contained", [*inside, *alone]) for _ in range(PROCESSES)]
        same, other = (peers[0].ask("describe") for peers in (bare, contained))
        found: dict[str, Any] = {"same": same}
        found["different"] = {name: other[name] for name in same if same[name] != other[name]}
        pairs: dict[str, Any] = {}

        def pair(name: str, ask: Callable[[Peer], float], turns: int = rounds) -> None:
            columns = take_turns(turns, bare, contained, ask, before=lambda peer, nth: peer.ask("settle", nth=nth))
            pairs[name] = describe_pair(*columns)

        large = str(files / "large")
        bare[0].ask("write", path=large, n_bytes=FILE)
        pair("fit", lambda peer: peer.ask("fit", calls=CALLS)["seconds"], 2 * rounds)
        pair("multiply", lambda peer: peer.ask("multiply"))
        pair("copy", lambda peer: peer.ask("copy", n_bytes=ARRAY))
        pair("write", lambda peer: peer.ask("write", path=str(files / peer.name), n_bytes=FILE), rounds // 2)
        pair("read", lambda peer: peer.ask("read", path=large))
        pair("open", lambda peer: peer.ask("open", folder=str(files), n=SMALL_FILES))
        pair("load", lambda peer: peer.ask("load"))
        shared = stack.enter_context(start_instance(yard))
        for where, before, job in (("", inside, None), ("_instance", shared, None), ("_nodes", inside, (2, 2))):
            launches = [["mpiexec", "-n", "2", *words, "python", script, "ranks"] for words in ([], before)]
            with contextlib.ExitStack() as ranks:
                how = [(f"ranks{where}", launch) for launch in launches]
                two = [[ranks.enter_context(yard.start_peer(*one, job=job)) for _ in range(LAUNCHES)] for one in how]
                for name, (n_bytes, times) in (("latency", SMALL), ("bandwidth", LARGE)):
                    question = {"n_bytes": n_bytes, "times": times // (5 if job else 1)}
                    columns = take_turns(rounds, *two, lambda peer, question=question: peer.ask("ping", **question))
                    pairs[name + where] = describe_pair(*columns)
    return found | {"contained": pairs}


def take_turns(
    rounds: int,
    ones: Sequence[Peer],
    others: Sequence[Peer],
    ask: Callable[[Peer], float],
    before: Callable[[Peer, int], object] = lambda peer, nth: None,
) -> tuple[list[float], list[float]]:
    """What each side answers: one, other, other, one, so that who comes first matters to neither; -1 is not counted."""
    columns: tuple[list[float], list[float]] = ([], [])
    for nth in range(-1, -(-rounds // 2)):
        one, other = ones[nth % len(ones)], others[(nth + nth // len(ones)) % len(others)]
        before(one, nth)
        before(other, nth)
        a, b, c, d = ask(one), ask(other), ask(other), ask(one)
        if nth >= 0:
            columns[0].extend((a, d))
            columns[1].extend((b, c))
    return columns


def describe_pair(bare: list[float], contained: list[float]) -> dict[str, Any]:
    return {"bare": median(bare), "contained": median(contained), "ratio": compare(contained, bare)}


@contextlib.contextmanager
def start_instance(yard: Yard) -> Iterator[list[str]]:
    """Begins a command that shares one container, hence one user namespace, with others: there CMA works."""
    name = yard.place.name
    binds = ["--bind", "/dev", "--bind", str(yard.place)]
    yard.run("apptainer", "--quiet", "instance", "start", "--contain", *binds, str(yard.image), name)
    try:
        yield ["apptainer", "--quiet", "exec", "--env", "MPIR_CVAR_CH4_CMA_ENABLE=1", f"instance://{name}"]
    finally:
        yard.run("apptainer", "instance", "stop", name)


# ---- starting -----------------------------------------------------------------------------------------------------


def measure_steps(yard: Yard, rounds: int) -> dict[str, float]:
    """Seconds of the commands that starting consists of."""
    importing = ["python", "-c", "import numpy, demos_hpc.worker"]
    bare_exec = ["apptainer", "--quiet", "exec", str(yard.image)]
    commands = {
        "python": ["python", "-c", "pass"],
        "import": importing,
        "mpiexec": ["mpiexec", "-n", "1", "true"],
        "srun": ["srun", "--quiet", "-n1", "true"],
        "srun_import": ["srun", "--quiet", "-n1", *importing],
        "exec": [*bare_exec, "true"],
        "exec_import": [*bare_exec, *importing],
        "image_run": [*yard.contain(), "true"],
        "image_srun_import": ["srun", "--quiet", "-n1", *yard.contain(), *importing],
    }
    assert list(commands) == list(STEPS)
    columns = alternate(rounds, *(lambda words=words: yard.clock(*words) for words in commands.values()))
    return dict(zip(commands, map(median, columns), strict=True))


# ---- what is said -------------------------------------------------------------------------------------------------


def show(found: dict[str, Any]) -> None:
    layers = found["layers"]
    print_table(
        [f"a fit of {CALLS} calls", "s", "of plain", "quartiles", "a call more (us)", "a row (us)", "start (s)"],
        [
            (
                LAYERS[name][0], f"{row['fit_s']:.3f}", f"{row['ratio'][0]:.3f}",
                "{1:.3f} to {2:.3f}".format(*row["ratio"]), f"{row['more_us']:+.0f}",
                f"{row['trip_us']:.0f}" if "trip_us" in row else "", f"{row['start_s']:.2f}",
            )
            for name, row in layers.items()
        ],
    )  # fmt: skip
    print_table(["starting", "s"], [(STEPS[name], f"{seconds:.2f}") for name, seconds in found["steps"].items()])
    print_table(
        ["contained over bare", "bare (ms)", "contained (ms)", "ratio", "quartiles"],
        [
            (
                name, f"{row['bare'] * 1e3:.4g}", f"{row['contained'] * 1e3:.4g}", f"{row['ratio'][0]:.3f}",
                "{1:.3f} to {2:.3f}".format(*row["ratio"]),
            )
            for name, row in found["contained"].items()
        ],
    )  # fmt: skip
    print(f"the same on both sides: {found['same']}; different: {found['different'] or 'nothing'}\n")


def make_figures(found: dict[str, Any]) -> dict[str, float]:
    pairs, layers = found["contained"], found["layers"]
    figures = {
        "contained_compute": 1 / pairs["fit"]["ratio"][0],
        "contained_roundtrip": pairs["latency"]["ratio"][0],
        "contained_roundtrip_nodes": pairs["latency_nodes"]["ratio"][0],
    }
    for name in (
        "multiply",
        "copy",
        "write",
        "read",
        "open",
        "load",
        "bandwidth",
        "bandwidth_instance",
        "bandwidth_nodes",
    ):
        figures[f"contained_{name}"] = 1 / pairs[name]["ratio"][0]
    figures |= {f"fit_{name}_vs_plain": row["ratio"][0] for name, row in layers.items() if name != "plain"}
    figures |= {f"trip_{name}_us": row["trip_us"] for name, row in layers.items() if "trip_us" in row}
    return figures | {f"start_{name}_s": row["start_s"] for name, row in layers.items()}


if __name__ == "__main__":
    main()
