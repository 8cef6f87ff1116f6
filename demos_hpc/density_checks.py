"""Checks of a density and its gradients against mathematics: normalization, derivatives, mean score."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from .messages import FloatArray
from .subject import Subject
from .verdict import failed, skipped

#: A quadrature whose error is larger says nothing.
_USELESS = 1e-2
#: A false alarm must lie this many estimated errors away: the estimates are of the right size, not exact.
_MARGIN = 30.0
#: Rows of a finite-difference comparison, and how many of them must disagree: one may lie on a kink.
_ROWS, _DISAGREE = 32, 3
#: Steps of the differences, each a third of the one before, down to 1e-12 of the first; the fewest that can tell.
_STEPS, _RATIO, _FEWEST = 24, 3.0, 9
#: Agreement that is asked of derivatives, relative to their size.
_DERIVATIVE = 1e-6
#: Standard errors; a mean that is zero strays so far once in 5e8 times.
_SIGMAS = 6.0


def check_normalized(subject: Subject) -> str:
    """The density integrates to one over the declared support, by quadrature in one or two dimensions."""
    d = subject.spec.n_observables
    if d > 2:
        raise skipped(f"{d} observables: quadrature is for one or two (log_density.score may tell more)")
    unclear, worst = "", 0.0
    for k, point in enumerate(subject.points):
        integral = subject.integral(k)
        away = abs(integral.value - 1)
        where = f"at {subject.describe(point)}"
        found = f"{integral.value:.8g} ± {integral.error:.1g} after {integral.rows} rows"
        sharp = integral.error <= _USELESS
        if integral.value == 0:
            unclear = f"no density was found {where}; offer sample(), or give rows x near the mass"
        elif sharp and away <= subject.tolerance + integral.error:
            worst = max(worst, away, integral.error)
        elif not math.isfinite(away) or (sharp and away > subject.tolerance + _MARGIN * integral.error):
            raise failed(
                f"exp(log_density) integrates to {found} {where}, not to 1:"
                " normalize over the support that the spec declares"
            )
        else:
            unclear = f"not converged {where}: {found}; allow more with max_rows, or give rows x near the mass"
    if unclear:
        raise skipped(unclear)
    return f"integrates to 1 within {worst:.1g} at {len(subject.points)} parameter points"


def check_value(subject: Subject, method: str) -> str:
    """The value that comes with a gradient is that of log_density."""
    for k, point in enumerate(subject.points):
        x = subject.rows(k, 64)
        alone, beside = subject.log_density(x, point), subject.call(method, x, point)[0]
        same = np.isclose(alone, beside, rtol=1e-9, atol=1e-9, equal_nan=True)
        if not same.all():
            row = int(np.argmin(same))
            raise failed(
                f"{method}() returns the value {float(beside[row])!r} where log_density() returns"
                f" {float(alone[row])!r}, at {subject.describe(point)}: both are the same log P, constants included"
            )
    return f"equal to log_density at {len(subject.points)} parameter points"


def check_derivative(subject: Subject, method: str) -> str:
    """Each component of a gradient agrees with finite differences of log_density."""
    wrt_x = method == "log_density_gradient_x"
    columns = subject.spec.observables if wrt_x else subject.spec.parameters
    names = [column.name for column in columns]
    unsettled: set[str] = set()
    points = _move_inside(subject)[:2]  # each takes some twenty parameter points a component, which may be dear
    for k, point in enumerate(points):
        x = subject.rows(k, _ROWS)
        value, gradient = subject.call(method, x, point)
        finite = np.isfinite(value)
        x, value, gradient = x[finite], value[finite], gradient[finite]
        for j, name in enumerate(names):
            if not finite.any():
                unsettled.add(name)
                continue
            line, scale, size = _make_line(subject, x, point, j, wrt_x, gradient[:, j])
            slope, error = differentiate(line, scale, value, size)
            extent = np.abs(slope) + np.median(np.abs(slope))
            away = np.abs(gradient[:, j] - slope)
            wrong = ~(away <= _DERIVATIVE * extent + 30 * error) & np.isfinite(error)
            if np.count_nonzero(wrong) >= min(_DISAGREE, len(x)):
                row = int(np.argmin(np.where(wrong, error / (extent + 1e-300), np.inf)))  # where differences are surest
                raise failed(
                    f"{method}() gives d log P / d {name} = {gradient[row, j]:.8g} where finite differences of"
                    f" log_density give {slope[row]:.8g} ± {error[row]:.1g}, in {np.count_nonzero(wrong)} of {len(x)}"
                    f" rows, at {subject.describe(point)}: correct component {j} of the gradient"
                )
            # A slope of nothing settles too, though its error is not small beside it.
            settled = 30 * error <= 0.05 * (extent + np.abs(gradient[:, j])) + 1e-6 * (1 + np.abs(value)) / scale
            if np.count_nonzero(settled) < min(8, len(x)):
                unsettled.add(name)
    if unsettled:
        raise skipped(f"finite differences did not settle for {', '.join(sorted(unsettled))}")
    return f"{', '.join(names)}: agrees with finite differences at {len(points)} parameter points"


def _move_inside(subject: Subject) -> FloatArray:
    """The points, none nearer to a bound than a thousandth, so that there is room on both sides."""
    lower, upper = subject.spec.lower, subject.spec.upper
    with np.errstate(invalid="ignore"):
        room = np.where(np.isfinite(upper - lower), upper - lower, np.maximum(1.0, np.abs(subject.points))) * 1e-3
    return np.clip(subject.points, lower + room, upper - room)


#: A step h to log_density at +h and at -h from every row, (n,) each.
Line = Callable[[float], tuple[FloatArray, FloatArray]]


def _make_line(
    subject: Subject, x: FloatArray, point: FloatArray, j: int, wrt_x: bool, gradient: FloatArray
) -> tuple[Line, float, FloatArray]:
    """log_density along coordinate j, the first step to take, and the size of the coordinate in each row."""
    steep = float(np.median(np.abs(gradient[np.isfinite(gradient)]))) if np.isfinite(gradient).any() else 0.0
    natural = 1 / steep if steep > 0 and math.isfinite(1 / steep) else 0.0
    direction = np.eye(subject.spec.n_observables if wrt_x else subject.spec.n_params)[j]
    if wrt_x:
        low, high = np.quantile(x[:, j], [0.25, 0.75])
        scale = max(0.1 * float(high - low), natural) or 0.1

        def along_x(h: float) -> tuple[FloatArray, FloatArray]:
            ahead, behind = x + h * direction, x - h * direction
            return _stay_inside(subject, x, ahead, point), _stay_inside(subject, x, behind, point)

        return along_x, scale, np.abs(x[:, j])
    room = min(point[j] - subject.spec.lower[j], subject.spec.upper[j] - point[j])
    scale = min(0.3 * float(room), max(0.1 * abs(float(point[j])), natural) or 0.1)

    def along_params(h: float) -> tuple[FloatArray, FloatArray]:
        return subject.log_density(x, point + h * direction), subject.log_density(x, point - h * direction)

    return along_params, scale, np.full(len(x), abs(point[j]))


def _stay_inside(subject: Subject, x: FloatArray, moved: FloatArray, point: FloatArray) -> FloatArray:
    """log_density of rows that were moved, nan where that was out of the support."""
    inside = np.all((moved >= subject.lower) & (moved <= subject.upper), axis=1)
    return np.where(inside, subject.log_density(np.where(inside[:, np.newaxis], moved, x), point), np.nan)


def differentiate(line: Line, scale: float, value: FloatArray, size: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Derivative of ``line`` at 0 and an estimate of its error, (n,) each; 0 and infinite where nothing is finite.

    Central differences at ever smaller steps, until every row is sure of more digits than are asked for or the
    steps have run out. ``value`` (n,) is the function at 0, ``size`` (n,) that of the coordinate, for roundoff.
    """
    changes: list[FloatArray] = []
    with np.errstate(all="ignore"):
        for i in range(_STEPS):
            changes.append(np.subtract(*line(scale * _RATIO**-i)))
            if i + 1 < _FEWEST:
                continue
            slope, error = _extrapolate(np.stack(changes), scale, value, size)
            extent = np.abs(slope) + np.median(np.abs(slope))
            if np.all(30 * error <= 0.3 * _DERIVATIVE * extent + 1e-9 * (1 + np.abs(value)) / scale):
                break
    return slope, error


def _extrapolate(
    change: FloatArray, scale: float, value: FloatArray, size: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """The derivative that f(h) - f(-h), (m, n) for steps h that fall by _RATIO, point to, and its error.

    Each pair of differences is extrapolated once (Richardson); every row takes the place where four successive
    extrapolations agree best, so neither truncation nor roundoff needs to be known beforehand. The error is how
    far these four differ, plus what roundoff there is: in the coordinate, in the value, and in what finer steps
    show of it (a model may compute in single precision, or integrate numerically).
    """
    steps = scale * _RATIO ** -np.arange(len(change))[:, np.newaxis]
    central = change / (2 * steps)
    refined = central[1:] + (central[1:] - central[:-1]) / (_RATIO**2 - 1)
    differ = np.abs(np.diff(refined, axis=0))
    chosen = refined[1:-2]
    spread = np.max([differ[:-2], differ[1:-1], differ[2:]], axis=0)
    # No change at all, where other steps saw one, is a step too small to be felt.
    spread = np.where((change[2:-2] == 0) & (change != 0).any(axis=0), np.inf, spread)
    finer = [np.max(np.abs(change[c + 3 :] - 2 * steps[c + 3 :] * s), axis=0) for c, s in enumerate(chosen)]
    roundoff = np.finfo(np.float64).eps * (np.abs(value) + size * np.abs(chosen)) + np.stack(finer)
    worst = spread + roundoff / steps[2:-2]
    worst = np.where(np.isfinite(worst), worst, np.inf)
    best = worst.argmin(axis=0)[np.newaxis]
    slope = np.take_along_axis(chosen, best, axis=0)[0]
    return np.where(np.isfinite(slope), slope, 0.0), np.take_along_axis(worst, best, axis=0)[0]


def check_score(subject: Subject) -> str:
    """Over draws, the mean gradient with respect to params is zero: the constant depends on params as it must.

    This holds where a density is normalized at all params, since then the integral of dP/dparams vanishes. It
    is asked where quadrature is not possible, of a sampler and a gradient that have passed their own checks.
    """
    every = range(len(subject.points))
    if subject.spec.n_observables <= 2 and all(subject.integral(k).error <= _USELESS for k in every):
        raise skipped("not needed: quadrature has told about the normalization")
    moving: list[str] = []
    for k, point in enumerate(subject.points):
        x = subject.draws(k)
        score = subject.call("log_density_gradient", x, point)[1]
        undefined = np.flatnonzero(~np.isfinite(score).all(axis=1))
        if len(undefined):
            raise failed(
                f"log_density_gradient() is not finite at {len(undefined)} draws, first {x[undefined[0]].tolist()}"
            )
        spread = score.std(axis=0) / math.sqrt(len(x))
        mean = score.mean(axis=0)
        for j, name in enumerate(subject.spec.param_names):
            if not abs(mean[j]) > _SIGMAS * spread[j] + 1e-9 * float(np.abs(score[:, j]).max()):
                continue
            if _moves_support(subject, x, point, j, float(np.sqrt((score[:, j] ** 2).mean()))):
                moving.append(name)
                continue
            raise failed(
                f"the mean of d log P / d {name} over {len(x)} draws is {mean[j]:.6g} ± {spread[j]:.1g} at"
                f" {subject.describe(point)}; it is 0 for a normalized density: a factor that depends on {name} is"
                " missing from log_density or wrong"
            )
    if moving:
        raise skipped(f"the support moves with {', '.join(sorted(set(moving)))}, where the mean score is not zero")
    return f"zero within {_SIGMAS:g} standard errors at {len(subject.points)} parameter points"


def _moves_support(subject: Subject, x: FloatArray, point: FloatArray, j: int, steep: float) -> bool:
    """Whether draws fall outside the support when parameter j moves by a natural step either way."""
    for side in (-0.3, 0.3):
        moved = point.copy()
        moved[j] = np.clip(point[j] + side / steep, subject.spec.lower[j], subject.spec.upper[j])
        if not np.isfinite(subject.log_density(x, moved)).all():
            return True
    return False
