"""The tables and the picture of docs/overhead.md."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np

from demos_hpc.plots import BLUE, GRAY, ORANGE, STYLE, save

DOCS = Path(__file__).parents[1] / "docs"
#: Between these lines the page is written by the benchmark.
BEGIN, END = "<!-- written by benchmarks/overhead.py --docs -->", "<!-- until here -->"
#: What a layer is, and what it buys.
LAYERS: Mapping[str, tuple[str, str]] = {
    "plain": ("NumPy in the caller's process", "nothing has to be started"),
    "world": ("in one MPI world", "as many workers as there are cores"),
    "door": ("a server of its own, through the door", "analyses and servers that come and go, several users"),
    "slurm_world": ("an MPI world in a job, one node", "cores of one's own, limits, accounting"),
    "slurm_nodes": ("an MPI world in a job, two nodes", "more than one node"),
    "image_plain": ("NumPy, in an image", "the same software everywhere, signed"),
    "image_world": ("an MPI world, each rank in an image", "workers and software that come together"),
    "image_door": ("a server in an image, through the door", "callers need no image"),
    "image_slurm_nodes": ("an MPI world in images in a job, two nodes", "all of these on any number of nodes"),
}
#: Commands that starting consists of.
STEPS: Mapping[str, str] = {
    "python": "python",
    "import": "python, NumPy and demos-hpc imported",
    "mpiexec": "mpiexec",
    "srun": "srun",
    "srun_import": "srun, then the import",
    "exec": "apptainer exec",
    "exec_import": "apptainer exec, then the import",
    "image_run": "demos-hpc image run: signature and digest of the image, then apptainer exec",
    "image_srun_import": "srun, demos-hpc image run, then the import",
}
#: What a machine does, bare and contained: its name, how its rate is found from seconds, and in which unit.
PAIRS: Mapping[str, tuple[str, float, str]] = {
    "fit": ("computing: the fit", 40, "calls/s"),
    "multiply": ("computing: matrices of 512 x 512", 20 * 2 * 512**3 / 1e9, "GFLOP/s"),
    "copy": ("memory: copy of 128 MiB", 2 * (128 << 20) / 1e9, "GB/s"),
    "write": ("files: write 64 MiB, to the disk", (64 << 20) / 1e9, "GB/s"),
    "read": ("files: read 64 MiB, from the page cache", (64 << 20) / 1e9, "GB/s"),
    "open": ("files: make, read and remove a small one", 1, "/s"),
    "load": ("software: read all of NumPy, warm", 1, "times/s"),
    "latency": ("MPI within a node: 8 bytes there and back", 1, "/s"),
    "bandwidth": ("MPI within a node: 4 MiB messages", 2 * (4 << 20) / 1e9, "GB/s"),
    "latency_instance": ("MPI within a node, both ranks in one container: 8 bytes", 1, "/s"),
    "bandwidth_instance": ("MPI within a node, both ranks in one container: 4 MiB", 2 * (4 << 20) / 1e9, "GB/s"),
    "latency_nodes": ("MPI between nodes (TCP): 8 bytes there and back", 1, "/s"),
    "bandwidth_nodes": ("MPI between nodes (TCP): 4 MiB messages", 2 * (4 << 20) / 1e9, "GB/s"),
}


def write_docs(found: Mapping[str, Any]) -> None:
    """Puts what was found into the page, and draws its picture."""
    page = DOCS / "overhead.md"
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n\n{format_tables(found)}\n{END}{after}", encoding="utf-8")
    draw(found, DOCS / "figures" / "overhead.png")


def format_tables(found: Mapping[str, Any]) -> str:
    machine, layers = found["machine"], found["layers"]
    end = found["end"]
    said = (
        f"Measured on {machine['date']} on {machine['cores']} cores of {machine['cpu']}. {_tell_software(found)}"
        f" Every fit ended at the same point, log L = {float.fromhex(end):.6f} ({end})."
    )
    lines = [
        fill(said, 125, break_on_hyphens=False),
        "",
        "| layer | time of the fit | quartiles | a row and back | start | what it buys |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in layers.items():
        label, buys = LAYERS[name]
        trip = f"{row['trip_us']:.0f} us" if "trip_us" in row else ""
        ratio = "{1:.3f} to {2:.3f}".format(*row["ratio"]) if name != "plain" else ""
        first = f"{row['ratio'][0]:.3f}" if name != "plain" else f"1 ({row['fit_s']:.2f} s)"
        lines.append(f"| {label} | {first} | {ratio} | {trip} | {row['start_s']:.1f} s | {buys} |")
    lines += ["", "| command | s |", "|---|---|"]
    lines += [f"| {STEPS[name]} | {seconds:.2f} |" for name, seconds in found["steps"].items()]
    lines += ["", "| | bare | contained | contained over bare | quartiles |", "|---|---|---|---|---|"]
    for name, row in found["contained"].items():
        label, work, unit = PAIRS[name]
        bare, contained = _format_rate(row["bare"], work, unit), _format_rate(row["contained"], work, unit)
        middle, low, high = (1 / value for value in row["ratio"])
        lines.append(f"| {label} | {bare} | {contained} | {middle:.3f} | {high:.3f} to {low:.3f} |")
    return "\n".join(lines) + "\n"


def _format_rate(seconds: float, work: float, unit: str) -> str:
    if unit == "/s":
        return f"{seconds * 1e6:.3g} us"
    return f"{work / seconds:.3g} {unit}"


def _tell_software(found: Mapping[str, Any]) -> str:
    """What is the same bare and in the image, and what is not."""
    same = {name: value for name, value in found["same"].items() if name not in found["different"]}
    words = f"The same bare and in the image: {', '.join(f'{name} {value}' for name, value in same.items())}."
    other = [f"{name} ({found['same'][name]} and {value})" for name, value in found["different"].items()]
    return f"{words} Different: {', '.join(other)}." if other else words


def draw(found: Mapping[str, Any], path: Path) -> None:
    """What each layer adds to a call and to the start, and how fast a contained machine is."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(11, 7.2), layout="constrained")
        grid = figure.add_gridspec(2, 2, height_ratios=(9, 11))
        trips = figure.add_subplot(grid[0, 0])
        _draw_bars(trips, found["layers"], "trip_us", "us", "{:.0f}")
        trips.set(title="A row to the model and back", xlabel="us")
        starts = figure.add_subplot(grid[0, 1])
        _draw_bars(starts, found["layers"], "start_s", "s", "{:.1f}")
        starts.set(title="From the command to the first answer", xlabel="s", yticklabels=[])
        _draw_pairs(figure.add_subplot(grid[1, :]), found["contained"])
        save(figure, path)


def _draw_bars(axes: Any, layers: Mapping[str, Any], key: str, unit: str, form: str) -> None:
    names = list(layers)[::-1]
    for nth, name in enumerate(names):
        value = layers[name].get(key, 0.0)
        axes.barh(nth, value, color=ORANGE if name.startswith("image") else BLUE, height=0.6)
        text = f"{form.format(value)} {unit}" if key in layers[name] else "none"
        axes.annotate(text, (value, nth), (4, 0), textcoords="offset points", va="center", fontsize=8)
    axes.set_yticks(range(len(names)), [LAYERS[name][0] for name in names], fontsize=8)
    axes.set_xlim(0, 1.2 * max(row.get(key, 0.0) for row in layers.values()))
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)


def _draw_pairs(axes: Any, pairs: Mapping[str, Any]) -> None:
    names = list(pairs)[::-1]
    middle, low, high = 1 / np.array([pairs[name]["ratio"] for name in names]).T
    axes.errorbar(middle, range(len(names)), xerr=[middle - high, low - middle], fmt="o", color=ORANGE, markersize=5)
    axes.axvline(1, color=GRAY, linewidth=1)
    axes.set_yticks(range(len(names)), [PAIRS[name][0] for name in names], fontsize=8)
    axes.set_xlabel("contained over bare, more is better; median and quartiles of turns")
    axes.set_title("What a machine does in an image, against what it does without")
    axes.tick_params(axis="y", length=0)
