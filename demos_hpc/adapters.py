"""A likelihood in the forms of PyMC and nutpie, which are imported when they are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

import numpy as np

from .cost import Differentiable
from .errors import InvalidInput
from .messages import FloatArray


def make_tensor(likelihood: Differentiable, theta: Sequence[Any]) -> Any:
    """The value at ``theta``, one scalar for each name, as a scalar of a PyTensor graph, for `pymc.Potential`.

    Value and gradient come from one operation, so that they cost one request where both are wanted.
    """
    if len(theta) != len(likelihood.names):
        raise InvalidInput(f"{len(theta)} tensors; {likelihood!r} takes {len(likelihood.names)}")
    tensor, op, graph = (import_module(f"pytensor.{name}") for name in ("tensor", "graph.op", "graph.basic"))

    class LikelihoodOp(op.Op):  # type: ignore[name-defined, misc]
        def make_node(self, theta: Any) -> Any:
            outputs = [tensor.dscalar(), tensor.dvector()]
            return graph.Apply(self, [theta], outputs if likelihood.has_gradient else outputs[:1])

        def perform(self, node: Any, inputs: Any, outputs: Any) -> None:
            if likelihood.has_gradient:
                value, outputs[1][0] = likelihood.value_and_gradient(inputs[0])
            else:
                value = likelihood(inputs[0])
            outputs[0][0] = np.asarray(value)

        def L_op(self, inputs: Any, outputs: Any, output_gradients: Any) -> Any:  # noqa: N802  (PyTensor's name)
            if not likelihood.has_gradient:
                raise NotImplementedError(f"{likelihood!r} has no gradient")  # PyMC then takes another step method
            return [output_gradients[0] * outputs[1]]

    result = LikelihoodOp()(tensor.stack(list(theta)))
    return result[0] if likelihood.has_gradient else result


def make_nutpie_model(likelihood: Differentiable, start: FloatArray) -> Any:
    """A compiled model for `nutpie.sample`; each chain starts at a row of ``start`` (m, k), chosen by its seed."""
    if np.isnan(start).any():
        raise InvalidInput(f"{likelihood!r}: give start=, theta (k,) or (m, k), where the chains begin")
    names = likelihood.names

    def expand(theta: FloatArray) -> dict[str, FloatArray]:
        return {name: np.asarray(value) for name, value in zip(names, theta, strict=True)}

    return import_module("nutpie.compiled_pyfunc").from_pyfunc(
        len(names),
        make_logp_fn=lambda: likelihood.value_and_gradient,
        make_expand_fn=lambda seed1, seed2, chain: expand,
        expanded_dtypes=[np.dtype(np.float64)] * len(names),
        expanded_shapes=[()] * len(names),
        expanded_names=list(names),
        make_initial_point_fn=lambda seed: start[np.random.default_rng(seed).integers(len(start))],
    )
