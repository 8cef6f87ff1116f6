"""Integrals of a density over its declared support, in one or two dimensions, with an estimate of their error.

Each axis is mapped to a finite interval by a double-exponential substitution (Takahasi and Mori, Publ. RIMS 9
(1974) 721), which tames infinite ends, heavy tails and integrable singularities alike. The box is cut where
points that are known to lie in the mass (draws, or what a search for maxima found) cluster, then adaptively,
with a Gauss-Legendre rule in every cell. All of it is done twice with different cuts: what one missed, the
difference shows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .messages import FloatArray

#: Rows (n, d) to values (n,).
LogDensity = Callable[[FloatArray], FloatArray]

#: Ends of the mapped coordinate: infinite axes then reach 1e137 times their scale, finite ones 1e-275 of theirs.
_END = 6.0
_HALF_PI = math.pi / 2
#: Nodes of the rule along one axis, by dimension.
_ORDER = {1: 15, 2: 8}
#: Points that locate the mass which may share a cell before it is cut for their sake.
_POINTS_PER_CELL = {1: 16, 2: 128}


@dataclass(frozen=True)
class Axis:
    """The map of one axis, y in [-6, 6] to x in (lower, upper).

    ``center`` and ``scale`` place the resolution of infinite axes, ``scale`` that of half-infinite ones.
    """

    lower: float
    upper: float
    center: float = 0.0
    scale: float = 1.0

    @property
    def is_infinite(self) -> bool:
        return math.isinf(self.lower) and math.isinf(self.upper)

    def to_x(self, y: FloatArray) -> tuple[FloatArray, FloatArray]:
        """x and log dx/dy, both of the shape of y."""
        log_slope = np.log(_HALF_PI * np.cosh(y))
        z = _HALF_PI * np.sinh(y)
        if self.is_infinite:
            # log cosh(z) without overflow
            log_cosh = np.abs(z) + np.log1p(np.exp(-2 * np.abs(z))) - math.log(2)
            return self.center + self.scale * np.sinh(z), log_slope + math.log(self.scale) + log_cosh
        if math.isinf(self.upper):
            return self.lower + self.scale * np.exp(z), log_slope + math.log(self.scale) + z
        if math.isinf(self.lower):
            return self.upper - self.scale * np.exp(-z), log_slope + math.log(self.scale) - z
        width = self.upper - self.lower
        near = np.exp(-2 * np.abs(z)) / (1 + np.exp(-2 * np.abs(z)))  # distance to the nearer end, of the width
        x = np.where(z < 0, self.lower + width * near, self.upper - width * near)
        return x, log_slope + math.log(2 * width) + np.log(near) + np.log1p(-near)

    def to_y(self, x: FloatArray) -> FloatArray:
        """The inverse of `to_x`, clipped to the ends."""
        with np.errstate(all="ignore"):
            if self.is_infinite:
                z = np.arcsinh((x - self.center) / self.scale)
            elif math.isinf(self.upper):
                z = np.log((x - self.lower) / self.scale)
            elif math.isinf(self.lower):
                z = -np.log((self.upper - x) / self.scale)
            else:
                z = (np.log(x - self.lower) - np.log(self.upper - x)) / 2
            return np.asarray(np.clip(np.nan_to_num(np.arcsinh(z / _HALF_PI), nan=0.0), -_END, _END))

    def placed(self, x: FloatArray) -> Axis:
        """The same axis with its resolution where the points x (k,) are."""
        if len(x) == 0:
            return self
        low, center, high = (float(q) for q in np.quantile(x, [0.25, 0.5, 0.75]))
        if self.is_infinite:
            return Axis(self.lower, self.upper, center, (high - low) / 1.35 or 1.0)
        distance = center - self.lower if math.isinf(self.upper) else self.upper - center
        return Axis(self.lower, self.upper, 0.0, distance if distance > 0 else 1.0)


class Box:
    """The support as a product of mapped axes, and the density on it as a function of y.

    Where the last of two axes is infinite it may lean: its x is counted from ``slope`` times that of the first.
    """

    def __init__(self, log_density: LogDensity, axes: list[Axis], slope: float = 0.0) -> None:
        self.axes = axes
        self.slope = slope
        self.rows = 0
        self._log_density = log_density

    def to_y(self, x: FloatArray) -> FloatArray:
        """x (n, d) to y (n, d)."""
        upright = x.copy()
        if self.slope:
            upright[:, 1] -= self.slope * x[:, 0]
        return np.stack([axis.to_y(upright[:, j]) for j, axis in enumerate(self.axes)], axis=1)

    def to_x(self, y: FloatArray) -> tuple[FloatArray, FloatArray]:
        """y (n, d) to x (n, d) and log of the Jacobian (n,), -inf where x is rounded to an end."""
        parts = [axis.to_x(y[:, j]) for j, axis in enumerate(self.axes)]
        x = np.stack([part[0] for part in parts], axis=1)
        inside = np.all([(p[0] > a.lower) & (p[0] < a.upper) for p, a in zip(parts, self.axes, strict=True)], axis=0)
        if self.slope:
            x[:, 1] += self.slope * x[:, 0]
        return x, np.where(inside, np.sum([part[1] for part in parts], axis=0), -np.inf)

    def log_mass(self, y: FloatArray) -> FloatArray:
        """log of density times Jacobian at y (n, d), (n,); -inf where the density is nan."""
        x, log_jacobian = self.to_x(y)
        self.rows += len(x)
        with np.errstate(all="ignore"):
            log_mass = self._log_density(x) + log_jacobian
        return np.where(np.isnan(log_mass), -np.inf, log_mass)


@dataclass(frozen=True)
class Integral:
    """An integral and the cells whose parts add up to it.

    Attributes
    ----------
    value, error
        The integral of exp(log_density), and an upper estimate of its numerical error.
    converged
        Whether ``error`` came below the target within the rows that were allowed.
    rows
        Rows at which the density was computed.
    box, low, high
        The mapped support, and the corners of the cells in its coordinates y, (m, d) float64 each.
    masses
        Integral over each cell, (m,) float64.
    """

    value: float
    error: float
    converged: bool
    rows: int
    box: Box
    low: FloatArray
    high: FloatArray
    masses: FloatArray

    def draw(self, n: int, rng: np.random.Generator) -> FloatArray:
        """n rows (n, d) distributed roughly as the density is: uniform in y within cells chosen by mass."""
        cell = rng.choice(len(self.masses), n, p=self.masses / self.masses.sum())
        y = self.low[cell] + (self.high - self.low)[cell] * rng.random((n, self.low.shape[1]))
        return self.box.to_x(y)[0]

    def count(self, x: FloatArray) -> npt.NDArray[np.intp]:
        """How many of the rows x (n, d) fall into each cell, (m,)."""
        y = self.box.to_y(x)
        counts = np.zeros(len(self.masses), dtype=np.intp)
        for cell in np.argsort(-self.masses, kind="stable"):  # the fullest first, since rows once found are dropped
            inside = ((y >= self.low[cell]) & (y < self.high[cell])).all(axis=1)
            counts[cell] = inside.sum()
            y = y[~inside]
        return counts


@np.errstate(over="ignore", invalid="ignore")  # a density may be infinite, and its integral then is
def integrate(
    log_density: LogDensity,
    lower: FloatArray,
    upper: FloatArray,
    draws: FloatArray | None,
    *,
    target: float,
    max_rows: int,
    seed: int = 0,
) -> Integral:
    """The integral of exp(log_density) over the box from ``lower`` to ``upper``, (d,) each, d at most 2.

    ``draws`` (k, d), rows that are believed to lie where the mass is, may be wrong or missing: they are used
    beside a search for maxima, and only to place cells. Refinement ends when the estimated error is below
    ``target`` or the next cells would exceed ``max_rows``.
    """
    rng = np.random.default_rng(seed)
    axes = [Axis(float(a), float(b)) for a, b in zip(lower, upper, strict=True)]
    box = Box(log_density, axes)
    if draws is None:
        # A first search in default coordinates says where to place the resolution.
        found = find_mass(box, rng)
        height = box.log_mass(found)
        draws, slope = box.to_x(found[height > height.max(initial=-np.inf) - 3])[0], 0.0
    else:
        draws = draws[np.isfinite(draws).all(axis=1)][:2048]
        slope = _find_slope(draws) if len(axes) == 2 and axes[1].is_infinite else 0.0
    spent = box.rows
    upright = draws.copy()
    if slope:
        upright[:, 1] -= slope * draws[:, 0]
    box = Box(log_density, [axis.placed(upright[:, j]) for j, axis in enumerate(axes)], slope)
    points = np.concatenate([box.to_y(draws), find_mass(box, rng)])
    spent += box.rows
    halves = []
    for part in (0, 1):
        box.rows = 0
        # A few points anywhere, so that the cuts differ even if nothing was found.
        chosen = np.concatenate([points[part::2], rng.uniform(-_END, _END, (16, len(axes)))])
        halves.append(_refine(box, chosen, target, (max_rows - spent) // 2))
    first, second = halves
    error = max(first.error, second.error, abs(first.value - second.value))
    rows = spent + first.rows + second.rows
    better = first if first.error < second.error else second
    return Integral(better.value, error, error <= target, rows, box, better.low, better.high, better.masses)


def _find_slope(draws: FloatArray) -> float:
    """The slope of the second column of draws (k, 2) against the first, tails left out."""
    if len(draws) < 16:
        return 0.0
    low, high = np.quantile(draws, [0.1, 0.9], axis=0)
    kept = draws[((draws >= low) & (draws <= high)).all(axis=1)]
    first, second = (kept - kept.mean(axis=0)).T if len(kept) else np.zeros((2, 1))
    square = float((first**2).sum())
    return float((first * second).sum()) / square if square > 0 else 0.0


def find_mass(box: Box, rng: np.random.Generator, n_starts: int = 3, n_points: int = 96) -> FloatArray:
    """Points (k, d) in y around the highest maxima that a random search finds; k may be 0.

    The logarithm of a narrow peak is wide, so a search that proposes steps of every size climbs peaks that no
    grid would meet. Around each maximum the points are Cauchy-distributed with the width at which the density
    falls by a factor e, so that they mark its core and the decades around it.
    """
    d = len(box.axes)
    start = np.concatenate([np.zeros((1, d)), rng.uniform(-_END, _END, (512 * d, d)), rng.uniform(-2, 2, (256, d))])
    height = box.log_mass(start)
    best = np.argsort(-height, kind="stable")[:n_starts]
    best = best[np.isfinite(height[best])]
    peak, height = start[best], height[best]
    if len(peak) == 0:
        return np.empty((0, d))
    every = np.arange(len(peak))
    for _ in range(60):
        shape = (len(peak), 48, d)
        step = rng.standard_normal(shape) * 10 ** rng.uniform(-13, 0.5, (*shape[:2], 1))
        step *= rng.random(shape) < (1.0 if d == 1 else 0.7)
        tried = np.clip(peak[:, np.newaxis] + step, -_END, _END)
        heights = box.log_mass(tried.reshape(-1, d)).reshape(shape[:2])
        winner = heights.argmax(axis=1)
        rise = heights[every, winner] > height
        peak = np.where(rise[:, np.newaxis], tried[every, winner], peak)
        height = np.maximum(height, heights[every, winner])
    radii = 10 ** np.linspace(-13, 0.5, 28)
    around = peak[:, None, None] + radii[:, None, None] * np.concatenate([np.eye(d), -np.eye(d)])
    beside = box.log_mass(np.clip(around, -_END, _END).reshape(-1, d)).reshape(around.shape[:3])
    fallen = height[:, None, None] - beside > 1
    # The first radius at which the density has fallen by e, in either direction of each axis.
    width = np.where(fallen.any(axis=1), radii[fallen.argmax(axis=1)], radii[-1])
    width = np.minimum(width[:, :d], width[:, d:])
    cloud = (peak[:, None] + width[:, None] * rng.standard_cauchy((len(peak), n_points, d))).reshape(-1, d)
    return np.asarray(cloud[(np.abs(cloud) < _END).all(axis=1)])


def _cut_around(points: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Cells that tile the box, each filled by its points or without any: corners (m, d), (m, d)."""
    d = points.shape[1]
    spread = np.maximum(np.subtract(*np.quantile(points, [0.9, 0.1], axis=0)), 1e-12)
    todo = [(np.full(d, -_END), np.full(d, _END), points)]
    done = []
    while todo:
        low, high, inside = todo.pop()
        axis, cut = _find_cut(low, high, inside, spread)
        if not low[axis] < cut < high[axis]:
            done.append((low, high))
            continue
        left, right = high.copy(), low.copy()
        left[axis] = right[axis] = cut
        below = inside[:, axis] < cut
        todo += [(low, left, inside[below]), (right, high, inside[~below])]
    return np.array([low for low, _ in done]), np.array([high for _, high in done])


def _find_cut(low: FloatArray, high: FloatArray, inside: FloatArray, spread: FloatArray) -> tuple[int, float]:
    """Axis and place of the next cut of a cell; nan where it needs none."""
    d = len(low)
    if len(inside) == 0:
        return 0, math.nan
    first, last = inside.min(axis=0), inside.max(axis=0)
    width = np.maximum(last - first, 1e-12)
    gaps = np.concatenate([(first - low) / width, (high - last) / width])
    side = int(gaps.argmax())
    if gaps[side] > 4:
        # A cell much wider than its points would not see them. Empty space is cut off in pieces that shrink
        # towards the points, so that tails are resolved on every scale.
        axis = side % d
        return axis, (first - (first - low) / 4 if side < d else last + (high - last) / 4)[axis]
    axis = int((width / spread).argmax())
    if len(inside) <= _POINTS_PER_CELL[d] or first[axis] == last[axis]:
        return axis, math.nan
    middle = float(np.median(inside[:, axis]))
    return axis, middle if middle > first[axis] else (first[axis] + last[axis]) / 2


def _refine(box: Box, points: FloatArray, target: float, max_rows: int) -> Integral:
    d = len(box.axes)
    nodes, weights = np.polynomial.legendre.leggauss(_ORDER[d])
    grid, halves = _tensor((nodes + 1) / 2, d), _tensor(np.array([0.0, 0.5]), d)
    weight = _tensor(weights / 2, d).prod(axis=1)

    def measure(low: FloatArray, high: FloatArray) -> tuple[FloatArray, FloatArray]:
        y = low[:, np.newaxis] + (high - low)[:, np.newaxis] * grid
        log_mass = box.log_mass(y.reshape(-1, d)).reshape(len(low), -1)
        return (np.exp(log_mass) * weight).sum(axis=1) * (high - low).prod(axis=1), log_mass.max(axis=1)

    low, high = _cut_around(points)
    mass, seen = measure(low, high)
    change = np.full(len(mass), np.inf)
    height = box.log_mass(points)
    owner = np.argmax([((points >= a) & (points < b)).all(axis=1) for a, b in zip(low, high, strict=True)], axis=0)
    while True:
        # A cell whose nodes see much less than its points do has missed something, however stable its integral.
        known = np.full(len(mass), -np.inf)
        np.maximum.at(known, owner, height)
        at_most = np.exp(known) * (high - low).prod(axis=1)
        error = np.where(known - seen > math.log(4), np.maximum(change, at_most), change)
        chosen = _worst(error, target / 2)
        if not np.isinf(change).any():  # the first halving is what gives errors at all: it is always done
            chosen = chosen[: max(0, (max_rows - box.rows) // (len(grid) * len(halves)))]
        if len(chosen) == 0 or not np.isfinite(mass).all():
            break
        size = high[chosen] - low[chosen]
        new_low = low[chosen][:, np.newaxis] + halves * size[:, np.newaxis]
        new_high = np.where(
            halves == 0, low[chosen][:, np.newaxis] + size[:, np.newaxis] / 2, high[chosen][:, np.newaxis]
        )
        parts, parts_seen = measure(new_low.reshape(-1, d), new_high.reshape(-1, d))
        changed = np.abs(parts.reshape(-1, len(halves)).sum(axis=1) - mass[chosen]) / len(halves)
        # Halves take the place of the cell, in order, so that the owners of points are easy to follow.
        copies = np.ones(len(mass), dtype=np.intp)
        copies[chosen] = len(halves)
        first = np.cumsum(copies) - copies
        split = copies[owner] > 1
        upper_half = points >= ((low + high) / 2)[owner]
        owner = first[owner] + np.where(split, upper_half @ (2 ** np.arange(d)[::-1]), 0)
        where = (first[chosen][:, np.newaxis] + np.arange(len(halves))).reshape(-1)
        low, high, mass, seen, change = (np.repeat(a, copies, axis=0) for a in (low, high, mass, seen, change))
        low[where], high[where] = new_low.reshape(-1, d), new_high.reshape(-1, d)
        mass[where], seen[where], change[where] = parts, parts_seen, np.repeat(changed, len(halves))
    total, uncertain = float(mass.sum()), float(error.sum())
    return Integral(total, uncertain, uncertain <= target, box.rows, box, low, high, mass)


def _tensor(line: FloatArray, d: int) -> FloatArray:
    """The points of a d-dimensional grid, (len(line)**d, d), the last axis fastest."""
    return np.stack(np.meshgrid(*[line] * d, indexing="ij"), axis=-1).reshape(-1, d)


def _worst(error: FloatArray, target: float) -> npt.NDArray[np.intp]:
    """The cells to halve so that the errors of all others add up to less than ``target``, worst first."""
    order = np.argsort(-error, kind="stable")
    rest = np.cumsum(error[order][::-1])[::-1]
    return np.asarray(order[rest > target])
