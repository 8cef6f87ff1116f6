"""What does a server survive, and what does anybody notice?

    python benchmarks/chaos.py [--scenario NAME ...] [--transport auto|unix|tcp] [--quick] [--json]

The scenarios, and what is wanted of each, stand in ``tests/chaos/scenarios.py``; CI runs them in short. Each server is
started for its scenario alone, and every answer is held against the one that is computed here, bit for bit.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from harness import print_table, report

TESTS = Path(__file__).resolve().parents[1] / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "chaos")]

from scenarios import SCENARIOS, run  # noqa: E402  (found by the path above)
from serving import WAYS  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenario", action="append", choices=SCENARIOS, help="may be repeated; all unless given")
    parser.add_argument(
        "--transport",
        choices=WAYS,
        default="auto",
        help="how callers of this host connect; by default through shared memory once they are busy",
    )
    parser.add_argument("--quick", action="store_true", help="in short, as CI does")
    parser.add_argument("--json", action="store_true", help="nothing but the line of figures")
    arguments = parser.parse_args()
    figures: dict[str, float] = {}
    n_misses = 0
    for name in arguments.scenario or SCENARIOS:
        scenario = SCENARIOS[name]
        if obstacle := scenario.find_obstacle():
            print(f"{name}: left out, {obstacle}", file=sys.stderr)
            continue
        begin = time.monotonic()
        with tempfile.TemporaryDirectory() as place, contextlib.redirect_stdout(sys.stderr):
            found = run(name, Path(place), arguments.transport, is_long=not arguments.quick)
        misses = scenario.find_misses(found)
        n_misses += len(misses)
        figures |= {f"{name}.{figure}": value for figure, value in found.items()}
        if not arguments.json:
            print(f"{name}, {time.monotonic() - begin:.0f} s: {'; '.join(misses) or 'as wanted'}")
            print_table(["figure", "value", "wanted"], [_describe(scenario.wanted, *item) for item in found.items()])
    report("chaos", figures)
    sys.exit(n_misses > 0)


def _describe(wanted: Mapping[str, tuple[float, float]], figure: str, value: float) -> list[str]:
    least, most = wanted.get(figure, (None, None))
    return [figure, f"{value:.4g}", "" if least is None else f"{least:g} to {most:g}"]


if __name__ == "__main__":
    main()
