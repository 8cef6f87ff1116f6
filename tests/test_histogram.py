"""Latencies in buckets: nothing is lost, quantiles are true to a bucket's width, and counting costs next to nothing."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demos_hpc.errors import InvalidInput
from demos_hpc.histogram import EDGES, LONGEST, PER_DECADE, SHORTEST, Histogram

CHECK = settings(derandomize=True, deadline=None, max_examples=200)
TIMES = st.lists(st.floats(min_value=1e-7, max_value=1e5), max_size=60)


def count(times: list[float]) -> Histogram:
    histogram = Histogram()
    for time in times:
        histogram.add(time)
    return histogram


def test_edges_go_from_a_microsecond_to_three_hours_in_equal_steps() -> None:
    assert (SHORTEST, LONGEST) == (1e-6, 1e4)
    assert len(EDGES) == 10 * PER_DECADE + 1
    steps = [high / low for low, high in pairwise(EDGES)]
    assert min(steps) > 1.11
    assert max(steps) < 1.13


@CHECK
@given(TIMES)
def test_each_time_is_counted_once_in_the_bucket_that_it_belongs_to(times: list[float]) -> None:
    histogram = count(times)
    assert histogram.count == len(times)
    assert histogram.seconds == pytest.approx(sum(times))
    for nth, edge in enumerate(EDGES):
        assert sum(histogram.counts[: nth + 1]) == sum(time <= edge for time in times)  # "le", as Prometheus has it


@CHECK
@given(TIMES.filter(bool), st.floats(min_value=0.0, max_value=1.0))
def test_a_quantile_is_within_its_bucket(times: list[float], q: float) -> None:
    exact = float(np.quantile(np.clip(times, SHORTEST, LONGEST), q, method="inverted_cdf"))
    found = count(times).quantile(q)
    assert found is not None
    assert exact / 1.13 <= found <= exact * 1.13


def test_quantiles_grow_and_there_is_none_of_nothing() -> None:
    histogram = count([0.001] * 98 + [1.0, 10.0])
    assert histogram.quantile(0.5) == pytest.approx(0.001, rel=0.13)
    assert histogram.quantile(0.99) == pytest.approx(1.0, rel=0.13)
    assert histogram.quantile(1.0) == pytest.approx(10.0, rel=0.13)
    quantiles = [histogram.quantile(q) for q in np.linspace(0, 1, 101)]
    assert quantiles == sorted(quantiles, key=lambda value: value or 0.0)
    assert Histogram().quantile(0.5) is None
    with pytest.raises(InvalidInput, match=r"quantile 99.*0 to 1"):
        histogram.quantile(99)


@pytest.mark.parametrize(
    ("time", "bucket"), [(0.0, 0), (-1.0, 0), (math.nan, 0), (1e-6, 0), (1.0001e-6, 1), (1e4, 200), (math.inf, 201)]
)
def test_times_that_are_none_spoil_nothing(time: float, bucket: int) -> None:
    histogram = count([0.5, time])
    assert histogram.counts[bucket] == 1
    assert histogram.count == 2
    assert math.isfinite(histogram.seconds)
    assert histogram.seconds >= 0.5
    json.dumps(histogram.describe(), allow_nan=False)


@CHECK
@given(TIMES, TIMES)
def test_what_came_since_a_copy_is_what_was_counted_since(first: list[float], then: list[float]) -> None:
    histogram = count(first)
    copy = histogram.copy()
    for time in then:
        histogram.add(time)
    recent = histogram.since(copy)
    assert recent.counts == count(then).counts
    assert recent.seconds == pytest.approx(sum(then), abs=1e-9 * sum(first) + 1e-9)
    assert copy == count(first)
    assert histogram.since(None) == histogram
    copy.merge(recent)
    assert copy.counts == histogram.counts


@CHECK
@given(TIMES)
def test_it_travels_as_json(times: list[float]) -> None:
    histogram = count(times)
    told = json.loads(json.dumps(histogram.describe(), allow_nan=False))
    assert Histogram.from_dict(told) == histogram
    assert (told["count"], told["p50"], told["p99"]) == (
        len(times),
        histogram.quantile(0.5),
        histogram.quantile(0.99),
    )


@pytest.mark.parametrize(
    "told",
    [
        {},
        {"first": 0, "counts": 3, "seconds": 0.0},
        {"first": 0, "counts": [1], "seconds": None},
        {"first": -1, "counts": [1], "seconds": 0.0},
        {"first": 202, "counts": [1], "seconds": 0.0},
        {"first": 0, "counts": [1] * 203, "seconds": 0.0},
        {"first": 0, "counts": [-1], "seconds": 0.0},
    ],
)
def test_what_is_no_histogram_is_refused(told: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="histogram"):
        Histogram.from_dict(told)


def test_it_says_what_it_is() -> None:
    assert repr(count([0.001, 0.001])).startswith("Histogram(2 times, 0.002 s, p50 0.00")
