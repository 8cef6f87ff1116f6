"""Writes `normal_tables.h`: the ziggurat of 256 layers of equal area under exp(-x**2 / 2), to the last bit.

Marsaglia and Tsang, "The ziggurat method for generating random variables", J. Stat. Softw. 5(8), 2000. Layer 255 is the
narrowest in height at the edge, layer 1 is the top, layer 0 the base with the tail. All arithmetic has 50 digits.
"""

from __future__ import annotations

import sys
from decimal import Decimal, getcontext
from pathlib import Path

LAYERS, BITS = 256, 52
#: Where the tail begins: with it the areas close at the top, which `make` asserts.
EDGE = Decimal("3.65415288536100877164542972039951576297485459974627")
HEADER = """/* The layers of the ziggurat for normal numbers; written by make_normal_tables.py. */
#ifndef DEMOS_NORMAL_TABLES_H
#define DEMOS_NORMAL_TABLES_H

#include <stdint.h>

/* Where the tail begins. */
static const double NORMAL_EDGE = {edge};

/* Width of each layer over 2^52. */
static const double NORMAL_WIDTHS[{layers}] = {{
{widths}
}};

/* Places, of 2^52, that lie inside of the layer above as well. */
static const uint64_t NORMAL_INNER[{layers}] = {{
{inner}
}};

/* exp(-x**2 / 2) at the end of each layer. */
static const double NORMAL_HEIGHTS[{layers}] = {{
{heights}
}};

#endif
"""


def weigh(x: Decimal) -> Decimal:
    return (-x * x / 2).exp()


def weigh_tail(x: Decimal) -> Decimal:
    """The integral of `weigh` from x on, by its continued fraction."""
    fraction = Decimal(0)
    for k in range(300, 0, -1):
        fraction = k / (x + fraction)
    return weigh(x) / (x + fraction)


def make() -> str:
    """The text of the header."""
    getcontext().prec = 50
    area = EDGE * weigh(EDGE) + weigh_tail(EDGE)
    ends = {LAYERS - 1: EDGE}
    for layer in range(LAYERS - 2, 0, -1):
        ends[layer] = (-2 * (area / ends[layer + 1] + weigh(ends[layer + 1])).ln()).sqrt()
    assert abs(area / ends[1] + weigh(ends[1]) - 1) < Decimal("1e-40")
    base = area / weigh(EDGE)  # as wide as a rectangle of that area
    widths = [base, *(ends[layer] for layer in range(1, LAYERS))]
    above = [EDGE, Decimal(0), *(ends[layer] for layer in range(1, LAYERS - 1))]
    return HEADER.format(
        layers=LAYERS,
        edge=float(EDGE).hex(),
        widths=tabulate([float(width / 2**BITS).hex() for width in widths]),
        inner=tabulate([f"{int(a / width * 2**BITS):#015x}" for a, width in zip(above, widths, strict=True)]),
        heights=tabulate([(1.0).hex(), *(float(weigh(ends[layer])).hex() for layer in range(1, LAYERS))]),
    )


def tabulate(numbers: list[str], columns: int = 4) -> str:
    return "\n".join(f"    {', '.join(numbers[i : i + columns])}," for i in range(0, len(numbers), columns))


if __name__ == "__main__":
    Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).with_name("normal_tables.h")).write_text(make())
