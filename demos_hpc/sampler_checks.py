"""Checks of a sampler: its seed, its support, and whether it draws from the density that is offered with it.

Seeds are fixed, so a test that is passed once is passed always; thresholds are such that a correct sampler
fails once in a million seeds or less.
"""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import numpy.typing as npt

from .messages import FloatArray
from .quadrature import Integral
from .subject import Subject
from .verdict import failed, skipped

#: Cells of a chi-square test; fewer where draws are few.
_CELLS, _DRAWS_PER_CELL = 64, 40
#: The normal deviate of one false alarm in three million.
_SIGMAS = 5.0
#: An integral whose error is larger would show in the chi-square of 16384 draws.
_EXACT = 1e-3


def check_seed(subject: Subject) -> str:
    """The same seed gives the same draws, block by block; another seed gives others."""
    if not subject.spec.reproducible:
        raise skipped("the spec declares reproducible=False: no promise is made for its draws")
    point, size = subject.points[0], subject.spec.block_rows
    n = 2 * size + max(1, size // 3)
    first = subject.sample(0, n, point, subject.seed)
    other = subject.sample(0, n, point, subject.seed + 1)
    again = subject.sample(0, n, point, subject.seed)
    own = "take all randomness from the generator rng, or declare reproducible=False"
    if not np.array_equal(first, again, equal_nan=True):
        row = int(np.argmax((first != again).any(axis=1)))
        raise failed(
            f"sample() with seed {subject.seed} gave {first[row].tolist()} and then {again[row].tolist()} in row"
            f" {row}: {own}"
        )
    if np.array_equal(first, other) or np.array_equal(first[:size], first[size : 2 * size]):
        raise failed(f"sample() gives the same draws for every seed or block, {first[0].tolist()} first: {own}")
    block = subject.sample(size, size, point, subject.seed)
    if not np.array_equal(first[size : 2 * size], block, equal_nan=True):
        raise failed(f"the second block of {size} draws differs when drawn without the first: {own}, keep no state")
    return f"{n} draws are the same for the same seed, and a block is the same without those before it"


def check_support(subject: Subject) -> str:
    """Draws lie inside the declared support, and the density there is finite."""
    for k, point in enumerate(subject.points):
        x = subject.draws(k)
        for j, o in enumerate(subject.spec.observables):
            outside = ~((x[:, j] >= subject.lower[j]) & (x[:, j] <= subject.upper[j]) & np.isfinite(x[:, j]))
            if outside.any():
                raise failed(
                    f"sample() drew {o.name} = {x[outside.argmax(), j]} in {outside.sum()} of {len(x)} rows at"
                    f" {subject.describe(point)}; the declared support is {subject.lower[j]:g} to {subject.upper[j]:g}"
                )
        if subject.works("log_density"):
            value = subject.log_density(x, point)
            bad = ~np.isfinite(value)
            if bad.any():
                raise failed(
                    f"log_density() is {value[bad.argmax()]} at the draw {x[bad.argmax()].tolist()}, and not finite in"
                    f" {bad.sum()} of {len(x)} rows that sample() drew at {subject.describe(point)}"
                )
    return f"{subject.n_draws} draws at each of {len(subject.points)} parameter points, all where the density is finite"


def check_draws(subject: Subject) -> str:
    """The draws are distributed as the density says."""
    d = subject.spec.n_observables
    tests = set()
    for k, point in enumerate(subject.points):
        x = subject.draws(k)
        integral = subject.integral(k) if d <= 2 else None
        if integral is not None and integral.value > 0 and integral.error <= _EXACT * integral.value < math.inf:
            tests.add("chi-square against quadrature")
            complaint = compare_cells(integral.count(x), integral.masses, _order(integral))
        else:
            tests.add("invariance under Metropolis steps")
            complaint = _compare_steps(subject, k)
        if complaint:
            raise failed(
                f"sample() does not draw from exp(log_density) at {subject.describe(point)}: {complaint};"
                " one of the two is wrong"
            )
    return f"{subject.n_draws} draws at each of {len(subject.points)} parameter points: {', '.join(sorted(tests))}"


def _order(integral: Integral) -> npt.NDArray[np.intp]:
    """The cells of a quadrature in an order in which neighbors follow one another: by strips, then along them."""
    center = (integral.low + integral.high) / 2
    if center.shape[1] == 1:
        return np.argsort(center[:, 0], kind="stable")
    by_first = np.argsort(center[:, 0], kind="stable")
    cumulative = np.cumsum(integral.masses[by_first])
    strip = np.empty(len(by_first))
    strip[by_first] = np.floor(math.sqrt(_CELLS) * cumulative / cumulative[-1])
    return np.lexsort((center[:, 1], strip))


def compare_cells(counts: npt.NDArray[np.intp], masses: FloatArray, order: npt.NDArray[np.intp]) -> str:
    """Pearson's chi-square of counts against masses, both (m,), cells merged in ``order``; "" where they agree."""
    n = int(counts.sum())
    n_cells = max(2, min(_CELLS, n // _DRAWS_PER_CELL))
    expected = n * masses[order] / masses.sum()
    observed = counts[order]
    merged: list[tuple[float, float]] = []
    here, seen = 0.0, 0.0
    for e, o in zip(expected.tolist(), observed.tolist(), strict=True):
        here, seen = here + e, seen + o
        if here >= n / n_cells:
            merged.append((here, seen))
            here, seen = 0.0, 0.0
    if merged:
        merged[-1] = (merged[-1][0] + here, merged[-1][1] + seen)
    freedom = len(merged) - 1
    if freedom < 1:
        raise skipped("the density is too narrow for the quadrature to divide")
    chi_square = sum((o - e) ** 2 / e for e, o in merged)
    # Wilson and Hilferty, PNAS 17 (1931) 684: the cube root of chi-square is nearly normal.
    spread = 2 / (9 * freedom)
    deviate = ((chi_square / freedom) ** (1 / 3) - (1 - spread)) / math.sqrt(spread)
    return "" if deviate < _SIGMAS else f"chi-square is {chi_square:.4g} for {freedom} degrees of freedom"


def _compare_steps(subject: Subject, k: int) -> str:
    """Whether draws keep their distribution under Metropolis steps that leave the density invariant.

    For draws x of the density, the mean of f(x') - f(x) is zero for every f, in any number of dimensions and
    whatever the constant of the density (compare Gandy and Scott, arXiv:2001.06465). Draws of something else are
    carried towards the density.
    """
    rng = subject.rng(100 + k)
    draws, point = subject.draws(k), subject.points[k]
    d = draws.shape[1]
    # Steps are scaled by draws that the test itself does not use.
    low, high = np.quantile(draws[: len(draws) // 4], [0.16, 0.84], axis=0)
    start = draws[len(draws) // 4 :]
    sweeps = max(1, min(8, subject.max_rows // (len(start) * d)))
    before = subject.log_density(start, point)
    x, height, moved = start.copy(), before.copy(), np.zeros(len(start), dtype=bool)
    for _ in range(sweeps):
        for j in range(d):
            tried = x.copy()
            tried[:, j] += 1.2 * (high[j] - low[j]) * rng.standard_normal(len(x))
            outside = (tried < subject.lower) | (tried > subject.upper)
            there = subject.log_density(np.where(outside, x, tried), point)
            with np.errstate(invalid="ignore"):
                accepted = (np.log(rng.random(len(x))) < there - height) & ~outside.any(axis=1)
            x[accepted], height[accepted] = tried[accepted], there[accepted]
            moved |= accepted
    if moved.mean() < 0.2:
        raise skipped(f"only {moved.mean():.0%} of the draws were moved by Metropolis steps: too few to compare")
    names = [o.name for o in subject.spec.observables]
    columns = [(names[j], start[:, j], x[:, j]) for j in range(d)] + [("log P", before, height)]
    ranks = [_rank_jointly(a, b) for _, a, b in columns]
    compared = [(f"the position of {name}", r) for (name, _, _), r in zip(columns, ranks, strict=True)]
    for name, r in zip(names, ranks, strict=False):
        # Legendre polynomials of the rank: bounded, and uncorrelated with one another.
        compared += [(f"the width of {name}", (3 * r**2 - 1) / 2), (f"the skewness of {name}", (5 * r**3 - 3 * r) / 2)]
    pairs = combinations(range(min(d, 8)), 2)
    compared += [(f"the correlation of {names[i]} and {names[j]}", ranks[i] * ranks[j]) for i, j in pairs]
    shifts = []
    for what, (old, new) in compared:
        change = new - old
        # The small number is for what does not change at all, but for rounding.
        shifts.append((float(change.mean() / (change.std() / math.sqrt(len(change)) + 1e-12)), what))
    shift, what = max(shifts, key=lambda pair: abs(pair[0]))
    if abs(shift) < _SIGMAS + math.log10(len(shifts)):
        return ""
    return f"Metropolis steps shift {what} by {shift:+.1f} standard errors"


def _rank_jointly(old: FloatArray, new: FloatArray) -> FloatArray:
    """Ranks of old and new (n,) among all 2n, ties sharing theirs, scaled to (-1, 1); (2, n)."""
    both = np.concatenate([old, new])
    ordered = np.sort(both)
    ranks = np.searchsorted(ordered, both, "left") + np.searchsorted(ordered, both, "right")
    return (ranks / len(both) - 1).reshape(2, -1)
