"""Where stripes are: shared in proportion, in order, and moved as little as may be."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Hashable, Mapping

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from demos_hpc.events import Lane
from demos_hpc.placement import Placement, share_out

COUNTED = settings(
    derandomize=True, deadline=None, database=None, max_examples=300, suppress_health_check=list(HealthCheck)
)


def populate(placement: Placement, **workers: int) -> None:
    """So many workers of model 0 join at each place."""
    for place, n in workers.items():
        for _ in range(n):
            placement.join(0, place)


def find_owners(placement: Placement, n_stripes: int, key: Hashable = "events", model: int = 0) -> list[Hashable]:
    """The place of each stripe; none where there are fewer than two places."""
    lanes = placement.find_lanes(model, key, range(n_stripes + 1))
    return [lane.place for lane in lanes for _ in range(lane.count)]


def test_stripes_are_shared_in_proportion_and_in_order() -> None:
    placement = Placement()
    populate(placement, west=2, east=4, north=1)
    assert placement.find_lanes(0, "events", [10 * nth for nth in range(15)]) == (
        Lane("west", 0, 40),
        Lane("east", 40, 80),
        Lane("north", 120, 20),
    )


def test_there_is_no_choice_with_fewer_than_two_places() -> None:
    placement = Placement()
    assert placement.find_lanes(0, "events", [0, 5, 10]) == ()
    populate(placement, west=5)
    placement.join(1, "east")
    assert placement.find_lanes(0, "events", [0, 5, 10]) == ()
    placement.join(0, "east")
    assert placement.find_lanes(0, "events", [0, 1, 2, 3, 4, 5, 6]) == (Lane("west", 0, 5), Lane("east", 5, 1))
    placement.leave(0, "east")
    assert placement.find_lanes(0, "events", [0, 5, 10]) == ()


def test_stripes_without_units_make_no_lanes() -> None:
    placement = Placement()
    populate(placement, west=1, east=1)
    assert placement.find_lanes(0, "events", [0, 0, 3, 3, 3, 3, 7, 7, 7]) == (Lane("west", 0, 3), Lane("east", 3, 4))
    assert placement.find_lanes(0, "events", [0, 0, 0, 0, 0, 0, 7, 7, 9]) == (Lane("east", 0, 9),)
    assert placement.find_lanes(0, "events", [0] * 9) == ()


def test_neighbors_are_one_lane_even_if_what_lies_between_has_no_units() -> None:
    placement = Placement()
    populate(placement, west=1, east=1)
    find_owners(placement, 6)
    placement.join(0, "north")
    assert find_owners(placement, 6) == ["west", "west", "north", "east", "east", "north"]
    assert placement.find_lanes(0, "events", [0, 5, 9, 10, 10, 10, 12]) == (Lane("west", 0, 9), Lane("north", 9, 3))


def test_places_that_come_back_get_back_what_they_had() -> None:
    placement = Placement()
    populate(placement, west=2, east=2, north=2)
    before = find_owners(placement, 12)
    for place in ("east", "west", "north", "east"):
        for losses in (1, 2):  # a worker; all of them
            for _ in range(losses):
                placement.leave(0, place)
            during = find_owners(placement, 12)
            assert during != before
            populate(placement, **{place: losses})
            assert find_owners(placement, 12) == before


def test_a_place_that_is_gone_for_a_while_in_which_nobody_asks_loses_nothing() -> None:
    placement = Placement()
    populate(placement, west=1, east=2)
    before = find_owners(placement, 7)
    placement.leave(0, "west")
    assert find_owners(placement, 7) == []  # there is no choice
    populate(placement, west=1)
    assert find_owners(placement, 7) == before


def test_small_datasets_are_spread() -> None:
    placement = Placement()
    populate(placement, west=3, east=3, north=3)
    first = [find_owners(placement, 1, key) for key in range(30)]
    assert Counter(itertools.chain(*first)) == {"west": 10, "east": 10, "north": 10}
    assert [find_owners(placement, 1, key) for key in range(30)] == first
    for key in range(30, 60):
        find_owners(placement, 4, key)
    assert max(placement._held[0].values()) == min(placement._held[0].values())


def test_models_do_not_share_places_or_stripes() -> None:
    placement = Placement()
    populate(placement, west=1, east=1)
    placement.join(1, "south")
    placement.join(1, "north")
    assert set(find_owners(placement, 4)) == {"west", "east"}
    assert set(find_owners(placement, 4, model=1)) == {"south", "north"}


def test_a_dataset_of_another_number_of_stripes_is_another() -> None:
    placement = Placement()
    populate(placement, west=1, east=1)
    assert find_owners(placement, 2) == ["west", "east"]
    assert find_owners(placement, 4) == ["west", "west", "east", "east"]
    assert placement._held[0] == {"west": 2, "east": 2}


def test_datasets_that_nobody_uses_are_forgotten() -> None:
    placement = Placement(most_keys=3)
    populate(placement, west=1, east=1)
    for key in "abc":
        find_owners(placement, 4, key)
    find_owners(placement, 4, "a")
    find_owners(placement, 4, "d")
    assert [key for _, key in placement._stripes] == ["c", "a", "d"]
    assert placement._held[0] == {"west": 6, "east": 6}


def test_who_was_never_there_cannot_leave() -> None:
    placement = Placement()
    populate(placement, west=1)
    for model, place in ((0, "east"), (1, "west")):
        with pytest.raises(KeyError):
            placement.leave(model, place)


def count_fewest_moves(n_stripes: int, workers: Mapping[Hashable, int], mine: Mapping[Hashable, int]) -> int:
    """The fewest moves after which each place has its share, rounded up or down: all ways are tried."""
    total = sum(workers.values())
    choices = [
        {n_stripes * n // total, -(-n_stripes * n // total)} for n in workers.values()
    ]  # fmt: skip
    return min(
        sum(max(0, quota - mine.get(place, 0)) for place, quota in zip(workers, quotas, strict=True))
        for quotas in itertools.product(*choices)
        if sum(quotas) == n_stripes
    )


events = st.lists(
    st.one_of(
        st.tuples(st.just("join"), st.sampled_from(["west", "east", "north", "south", None])),
        st.tuples(st.just("leave"), st.integers(0, 99)),
        st.tuples(st.just("find"), st.sampled_from("abc")),
    ),
    max_size=40,
)


@COUNTED
@given(events=events, sizes=st.fixed_dictionaries({key: st.integers(0, 12) for key in "abc"}))
def test_any_coming_and_going(events: list[tuple[str, Hashable]], sizes: dict[str, int]) -> None:
    placement, twin = Placement(most_keys=2), Placement(most_keys=2)
    workers: Counter[Hashable] = Counter()
    recent: dict[str, list[Hashable]] = {}
    for what, argument in [("join", "west"), ("join", "east"), *events, *[("find", key) for key in "abc"]]:
        if what == "join":
            workers[argument] += 1
            placement.join(0, argument)
            twin.join(0, argument)
            continue
        if what == "leave":
            assert isinstance(argument, int)
            if workers:
                place = sorted(workers, key=str)[argument % len(workers)]
                workers[place] -= 1
                workers = +workers
                placement.leave(0, place)
                twin.leave(0, place)
            continue
        assert isinstance(argument, str)
        n = sizes[argument]
        owners = find_owners(placement, n, argument)
        assert find_owners(twin, n, argument) == owners
        if len(workers) < 2:
            assert owners == []
            continue
        assert len(owners) == n
        found = Counter(owners)
        assert all(abs(found[place] * workers.total() - n * workers[place]) < workers.total() for place in workers)
        assert found.keys() <= workers.keys()
        before = recent.pop(argument, None)
        if before is None:
            assert len(list(itertools.groupby(owners))) == len(found), "in pieces"
        else:
            moved = sum(a != b for a, b in zip(before, owners, strict=True))
            assert moved == count_fewest_moves(n, workers, Counter(before))
        recent[argument] = owners
        if len(recent) > 2:
            del recent[next(iter(recent))]
        held = Counter(itertools.chain(*[stripes.owners for stripes in placement._stripes.values()]))
        assert placement._held[0] == held


@COUNTED
@given(
    counts=st.lists(st.integers(0, 5), min_size=1, max_size=30),
    workers=st.lists(st.integers(1, 5), min_size=2, max_size=6),
    changes=st.lists(st.integers(0, 9), max_size=6),
)
def test_lanes_are_a_partition(counts: list[int], workers: list[int], changes: list[int]) -> None:
    placement = Placement()
    populate(placement, **{f"place {nth}": n for nth, n in enumerate(workers)})
    edges = [0, *itertools.accumulate(counts)]
    owners = find_owners(placement, len(counts))
    for change in changes:
        placement.join(0, f"place {change}")
        owners = find_owners(placement, len(counts))
    lanes = placement.find_lanes(0, "events", edges)
    assert [lane.first for lane in lanes] == [0, *itertools.accumulate(lane.count for lane in lanes)][: len(lanes)]
    assert sum(lane.count for lane in lanes) == edges[-1]
    assert all(lane.count for lane in lanes)
    assert all(a.place != b.place for a, b in itertools.pairwise(lanes))
    units = [place for place, count in zip(owners, counts, strict=True) for _ in range(count)]
    assert [lane.place for lane in lanes for _ in range(lane.count)] == units


def test_largest_remainders_come_first() -> None:
    assert share_out(10, {"west": 5, "east": 3, "north": 1}, {}, {}) == {"west": 6, "east": 3, "north": 1}
    assert share_out(10, {"west": 5, "east": 3, "north": 1}, {"east": 4}, {}) == {"west": 5, "east": 4, "north": 1}
    assert share_out(1, {"west": 1, "east": 1}, {}, {"west": 3, "east": 2}) == {"west": 0, "east": 1}
