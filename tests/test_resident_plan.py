"""`resident_plan`: cells of likelihoods whose rows the workers hold."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from demos_hpc.blocks import count_blocks, sum_blocks, sum_pairwise
from demos_hpc.errors import BadFrame, DemosError, InvalidInput, NotOffered
from demos_hpc.messages import Array, Flag, Kind, Operation
from demos_hpc.model import LoadedModel
from demos_hpc.reference import Reference
from demos_hpc.resident_plan import MOST_GROUPS, ResidentPlan, Rows, choose_group, make_resident_plan
from demos_hpc.testing import Gaussian
from demos_hpc.wire import Frame, pack, read_header

SPEC = LoadedModel(Gaussian()).spec
ROWS = 10_000_000_000
REFERENCE = Reference(dataset="events", identity="0123456789abcdef", rows=ROWS, width=1)
ASKED = np.frombuffer(REFERENCE.to_bytes(), np.uint8)


def ask(arrays: list[Array], n_rows: int, operation: Operation = Operation.LOG_LIKELIHOOD) -> ResidentPlan:
    packed = pack(Kind.REQUEST, arrays, operation=operation, flags=Flag.RESIDENT, id=1, n_rows=n_rows)
    data = bytearray(packed.head)
    return make_resident_plan(SPEC, Frame(read_header(data), data))


def plan_of(rows: Rows, points: int = 1) -> ResidentPlan:
    params = np.ones((points, 2))
    return ask([ASKED, rows.to_array(), params], rows.count_groups(SPEC.block_rows) * points)


@given(n=st.integers(1, 3000), block=st.integers(1, 40), k=st.integers(0, 6), seed=st.integers(0, 9))
def test_groups_are_nodes_of_the_tree_that_adds_all_blocks(n: int, block: int, k: int, seed: int) -> None:
    values = np.random.default_rng(seed).normal(size=n) * 10.0 ** np.random.default_rng(seed).integers(-9, 9, n)
    rows = block << k
    groups = [sum_pairwise(sum_blocks(values[start : start + rows], block)) for start in range(0, n, rows)]
    assert sum_pairwise(np.array(groups)) == sum_pairwise(sum_blocks(values, block))


@given(n=st.integers(1, 2**45), block=st.integers(1, 1 << 20))
def test_groups_are_powers_of_two_and_not_too_many(n: int, block: int) -> None:
    group = choose_group(n, block)
    assert group & (group - 1) == 0
    assert count_blocks(n, group * block) <= MOST_GROUPS


@given(data=st.data())
def test_units_cover_rows_and_points_once(data: st.DataObject) -> None:
    points, group = data.draw(st.integers(1, 5)), 1 << data.draw(st.integers(0, 3))
    step = data.draw(st.integers(1, 3))
    count = data.draw(st.integers(1, 20 * 1024))
    start = data.draw(st.integers(0, ROWS - step * count))
    plan = plan_of(Rows(start, step, count, group), points)
    params = np.arange(2.0 * points).reshape(points, 2)
    seen = np.zeros((count, points), dtype=int)
    unit = 0
    while unit < plan.units:
        into = unit % points
        n_units = data.draw(st.integers(1, points - into)) if into or data.draw(st.booleans()) else points
        first, n_cells, (asked, span, chosen) = plan.select(unit, n_units, params)
        assert (first, n_cells) == (unit, n_units)
        assert asked.tobytes() == ASKED.tobytes()
        rows = Rows.of(span)
        assert (rows.step, rows.group) == (step, group)
        at = (rows.start - start) // step
        begin, end = plan.rows_of(unit, n_units)
        assert (begin, end) == (at, at + rows.count)
        seen[at : at + rows.count, (chosen[:, 0] / 2).astype(int)] += 1
        unit += n_units
    assert (seen == 1).all()


@given(data=st.data())
def test_edges_say_where_each_stripe_of_the_dataset_begins(data: st.DataObject) -> None:
    points, group = data.draw(st.integers(1, 4)), 1 << data.draw(st.integers(0, 16))
    step = data.draw(st.sampled_from([1, 2, 1000]))
    count = data.draw(st.integers(1, ROWS // step))
    if count_blocks(count, 1024) > group << 24:
        group = 1 << 20
    start = data.draw(st.integers(0, ROWS - step * count))
    plan = plan_of(Rows(start, step, count, group), points)
    edges = plan.edges
    stripe_rows = -(-ROWS // (len(edges) - 1))
    assert edges[0] == 0
    assert edges[-1] == plan.units
    assert edges == sorted(edges)
    for stripe, (first, stop) in enumerate(pairwise(edges)):
        for unit in {first, stop - 1} if first < stop else ():
            row = start + unit // points * group * SPEC.block_rows * step
            assert row // stripe_rows == stripe


def test_steps_without_a_number_are_steps_behind_the_last_row() -> None:
    """What is far beyond 64 bits must not end the dispatcher, which looks for the stripes of each request."""
    plan = plan_of(Rows(ROWS - 1, 2**62, 1, 1 << 16), 3)
    assert plan.edges == [0] * (len(plan.edges) - 1) + [3]
    plan = plan_of(Rows(0, 2**63 - 1, 1, 1 << 16), 3)
    assert plan.edges == [0] + [3] * (len(plan.edges) - 1)


def test_long_references_are_understood_as_well() -> None:
    long = Reference(dataset="e" * 5000, identity="0123456789abcdef", rows=ROWS, width=1)
    plan = ask([np.frombuffer(long.to_bytes(), np.uint8), Rows(0, 1, 10, 1).to_array()], 1)
    assert plan.reference == long


HOSTILE: dict[str, tuple[list[Array], int, type[DemosError]]] = {
    "no rows": ([ASKED], 1, InvalidInput),
    "rows of another type": ([ASKED, np.ones(4)], 1, InvalidInput),
    "too few numbers": ([ASKED, np.ones(3, np.int64)], 1, InvalidInput),
    "no reference": ([np.zeros(5, np.uint8), Rows(0, 1, 10, 1).to_array()], 1, BadFrame),
    "rows before the first": ([ASKED, Rows(-1, 1, 10, 1).to_array()], 1, InvalidInput),
    "rows behind the last": ([ASKED, Rows(ROWS - 9, 1, 10, 1).to_array()], 1, InvalidInput),
    "a number that overflows": ([ASKED, Rows(0, 2**62, 2**62, 1).to_array()], 1, InvalidInput),
    "no step": ([ASKED, Rows(0, 0, 10, 1).to_array()], 1, InvalidInput),
    "nothing": ([ASKED, Rows(0, 1, 0, 1).to_array()], 1, InvalidInput),
    "groups of three": ([ASKED, Rows(0, 1, 10, 3).to_array()], 1, InvalidInput),
    "a group that takes hours": ([ASKED, Rows(0, 1, 10, 1 << 17).to_array()], 1, InvalidInput),
    "groups of none": ([ASKED, Rows(0, 1, 10, 0).to_array()], 1, InvalidInput),
    "more cells than there are": ([ASKED, Rows(0, 1, 10, 1).to_array()], 2, InvalidInput),
    "params of another width": ([ASKED, Rows(0, 1, 10, 1).to_array(), np.ones((1, 3))], 1, InvalidInput),
    "no points": ([ASKED, Rows(0, 1, 10, 1).to_array(), np.ones((0, 2))], 0, InvalidInput),
    "four arrays": ([ASKED, Rows(0, 1, 10, 1).to_array(), np.ones((1, 2)), np.ones(1)], 1, InvalidInput),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_request_is_refused(name: str) -> None:
    arrays, n_rows, error = HOSTILE[name]
    with pytest.raises(error):
        ask(arrays, n_rows)


def test_rows_of_another_width_are_refused() -> None:
    other = Reference(dataset="events", identity="0123456789abcdef", rows=10, width=2)
    with pytest.raises(InvalidInput, match="rows of 2 columns; model 'gaussian' takes 1"):
        ask([np.frombuffer(other.to_bytes(), np.uint8), Rows(0, 1, 10, 1).to_array()], 1)


def test_models_without_densities_offer_none() -> None:
    data = bytearray(pack(Kind.REQUEST, [ASKED], operation=Operation.LOG_LIKELIHOOD, flags=Flag.RESIDENT).head)
    with pytest.raises(NotOffered, match="does not offer log_likelihood of resident data"):
        make_resident_plan(SPEC.with_operations(["sample"]), Frame(read_header(data), data))
    with pytest.raises(NotOffered, match=r"workers of model 'gaussian' hold no data \(they are ranks in C\); send"):
        make_resident_plan(SPEC.with_operations(["log_likelihood"]), Frame(read_header(data), data))
