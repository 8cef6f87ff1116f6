"""Calls a model and writes doubles into a file, as client.c, client.cpp and client.f90 do: the same ones.

    client FILE          the answers of a Gaussian, one call after the other
    client FILE 2 3      for each number, of a call with it as the one row: the status, and the value

Python has one word more, in front: a way through the door, or auto.
"""

import sys

import numpy as np

import demos_hpc

N, SEED = 2500, 7


def collect(model, draws=None):
    """The answers of a Gaussian, to its own draws unless others are given."""
    point, points = np.array([0.5, 2.0]), np.array([[0.5, 2.0], [-0.25, 1.5]])
    i = np.arange(N)
    rows = np.stack([0.001 * i, 1 + 0.001 * i], axis=1)
    x = model.sample(N, point, seed=SEED) if draws is None else draws
    try:
        model.sample(1, [0.0, -1.0], seed=SEED)
        status = 0
    except demos_hpc.DemosError as error:
        status = error.status
    yield from ([model.spec.n_observables, model.spec.n_params, model.spec.n_outputs], x, x[1024:1027])
    yield model.log_density(x, point)
    yield model.log_density(x, rows)
    yield from model.log_density_gradient(x, rows)
    yield from model.log_density_gradient(x, [0.0, 1.0], wrt="x")
    yield from model.log_likelihood_gradient(x, points)
    yield from (model.evaluate(points), [0.0, 1.0], [status])


def collect_faults(model, numbers):
    """Status and value of each call with such a row."""
    for number in numbers:
        try:
            yield [0, *model.log_density([[number]], [1.0])]
        except demos_hpc.DemosError as error:
            yield [error.status, 0]


if __name__ == "__main__":
    way, path, *numbers = sys.argv[1:]
    with demos_hpc.connect(transport=way) as served:
        answers = collect_faults(served, map(float, numbers)) if numbers else collect(served)
        np.concatenate([np.ravel(np.asarray(answer, dtype=float)) for answer in answers]).tofile(path)
