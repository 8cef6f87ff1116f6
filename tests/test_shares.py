"""Whose turn it is: always somebody's who was served least."""

from __future__ import annotations

import time
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from demos_hpc.shares import Party, Shares


def take(shares: Shares[int], seconds: float) -> Party[int]:
    """The next party is served one item, for ``seconds``."""
    party = shares.next()
    shares.remove(party, next(iter(party.queue)))
    shares.charge(party, seconds)
    return party


def fill(shares: Shares[int], party: Party[int], n: int) -> None:
    for _ in range(n):
        shares.push(party, object())  # type: ignore[arg-type]


def test_items_of_a_party_come_in_order() -> None:
    shares: Shares[str] = Shares()
    party = shares.join("ada")
    for item in "abcd":
        shares.push(party, item)
    shares.remove(party, "c")
    assert shares.waiting == 3
    assert list(shares.next().queue) == ["a", "b", "d"]


def test_parties_take_turns() -> None:
    shares: Shares[int] = Shares()
    parties = [shares.join(user) for user in "abc"]
    for party in parties:
        fill(shares, party, 3)
    assert [parties.index(take(shares, 1.0)) for _ in range(9)] == [0, 1, 2] * 3
    assert shares.waiting == 0


def test_seconds_count_not_items() -> None:
    shares: Shares[int] = Shares()
    cheap, dear = shares.join("a"), shares.join("b")
    fill(shares, cheap, 1000)
    fill(shares, dear, 1000)
    served: Counter[Party[int]] = Counter()
    for _ in range(500):
        party = shares.next()
        served[take(shares, 1.0 if party is cheap else 9.0)] += 1
    assert served[cheap] == pytest.approx(450, abs=10)


def test_users_share_first_then_their_clients() -> None:
    shares: Shares[int] = Shares()
    parties = [shares.join(user) for user in ("a", "a", "a", "b")]
    for party in parties:
        fill(shares, party, 1000)
    served = Counter(parties.index(take(shares, 1.0)) for _ in range(600))
    assert served[3] == 300
    assert {served[0], served[1], served[2]} == {100}


def test_absence_saves_up_nothing() -> None:
    shares: Shares[int] = Shares()
    busy, away = shares.join("a"), shares.join("b")
    fill(shares, busy, 1000)
    fill(shares, away, 1)
    for _ in range(500):
        take(shares, 1.0)
    newcomer = shares.join("a")
    fill(shares, away, 500)
    fill(shares, newcomer, 500)
    served = Counter(take(shares, 1.0) for _ in range(100))
    assert served[away] == pytest.approx(50, abs=1)
    assert served[busy] == pytest.approx(25, abs=1)
    assert served[newcomer] == pytest.approx(25, abs=1)


def test_turns_without_waiting_count_too() -> None:
    shares: Shares[int] = Shares()
    busy = shares.join("a")
    for _ in range(100):
        shares.skip(busy)
        shares.charge(busy, 1.0)
    newcomer = shares.join("b")
    fill(shares, newcomer, 100)
    fill(shares, busy, 100)
    served = Counter(take(shares, 1.0) for _ in range(50))
    assert served[busy] == pytest.approx(25, abs=1)


def test_what_was_charged_too_much_is_given_back_at_once() -> None:
    shares: Shares[int] = Shares()
    first, second = shares.join("a"), shares.join("a")
    fill(shares, first, 100)
    fill(shares, second, 100)
    take(shares, 1000.0)
    for _ in range(10):
        take(shares, 1.0)
    shares.charge(first, -999.0)
    served = Counter(take(shares, 1.0) for _ in range(20))
    assert served[first] == pytest.approx(15, abs=1)  # 9 behind, then in turn


def test_nothing_of_a_suspended_party_is_served() -> None:
    shares: Shares[str] = Shares()
    away, here = shares.join("ada"), shares.join("ada")
    shares.push(away, "a")
    shares.push(here, "b")
    for _ in range(2):  # once is enough
        shares.suspend(away)
    shares.push(away, "c")
    assert shares.waiting == away.user.waiting == 1
    assert (away.waits, here.waits) == (False, True)
    assert shares.next() is here
    shares.remove(away, "a")
    shares.remove(here, "b")
    assert shares.waiting == 0
    for _ in range(2):
        shares.resume(away)
    assert shares.waiting == away.user.waiting == 1
    assert list(shares.next().queue) == ["c"]


def test_a_suspended_party_leaves_its_share_to_others_of_its_user() -> None:
    shares: Shares[int] = Shares()
    first, second, other = parties = [shares.join(user) for user in ("ada", "ada", "bea")]
    for party in parties:
        fill(shares, party, 1000)
    shares.suspend(first)
    served = Counter(take(shares, 1.0) for _ in range(200))
    assert served == {second: 100, other: 100}
    shares.suspend(second)
    assert Counter(take(shares, 1.0) for _ in range(100)) == {other: 100}
    shares.resume(first)
    shares.resume(second)
    served = Counter(take(shares, 1.0) for _ in range(200))
    assert served[other] == pytest.approx(100, abs=1)
    assert served[first] == pytest.approx(50, abs=1)  # what it left is gone


def test_suspending_who_has_nothing_and_resuming_who_was_not_suspended() -> None:
    shares: Shares[str] = Shares()
    party = shares.join("ada")
    shares.resume(party)
    shares.suspend(party)
    assert shares.waiting == 0
    shares.push(party, "a")
    shares.remove(party, "a")
    shares.resume(party)
    assert shares.waiting == party.user.waiting == 0
    shares.push(party, "b")
    assert shares.next() is party


def test_thousands_of_clients_cost_little() -> None:
    def measure(n: int) -> float:
        shares: Shares[int] = Shares()
        parties = [shares.join("ada") for _ in range(n)]
        for party in parties:
            fill(shares, party, 4000 // n)
        begin = time.process_time()
        for _ in range(4000):
            take(shares, 1.0)
        return time.process_time() - begin

    # With a search through all of them it would be a hundred times as much.
    assert min(measure(4000) for _ in range(3)) < 20 * min(measure(10) for _ in range(3))


class Naive:
    """What each was served, in seconds; who waits."""

    def __init__(self, parties: list[Party[int]]) -> None:
        self.parties = parties

    def may_be_next(self, party: Party[int]) -> bool:
        waiting = [p for p in self.parties if p.queue and not p.is_suspended]
        users = {p.user for p in waiting}
        of_user = [p for p in waiting if p.user is party.user]
        return (
            party in waiting
            and party.user.served == min(user.served for user in users)
            and party.served == min(p.served for p in of_user)
        )


@settings(derandomize=True, deadline=None, database=None, max_examples=200, suppress_health_check=list(HealthCheck))
@given(
    users=st.lists(st.integers(0, 3), min_size=1, max_size=8),
    steps=st.lists(
        st.tuples(
            st.sampled_from(["push", "push", "take", "take", "charge", "remove", "skip", "suspend", "resume"]),
            st.integers(0, 999),
        )
    ),
)
def test_next_was_served_least(users: list[int], steps: list[tuple[str, int]]) -> None:
    shares: Shares[int] = Shares()
    parties = [shares.join(f"user {user}") for user in users]
    naive = Naive(parties)
    for number, (what, argument) in enumerate(steps):
        party = parties[argument % len(parties)]
        if what == "push":
            shares.push(party, number)
        elif what == "take" and shares.waiting:
            assert naive.may_be_next(shares.next())
            take(shares, argument / 7)
        elif what == "charge":
            shares.charge(party, (argument - 500) / 7)
        elif what == "remove" and party.queue:
            shares.remove(party, list(party.queue)[argument % len(party.queue)])
        elif what == "skip" and not shares.waiting:
            shares.skip(party)
        elif what == "suspend":
            shares.suspend(party)
        elif what == "resume":
            shares.resume(party)
        waiting = [p for p in parties if not p.is_suspended]
        assert shares.waiting == sum(len(p.queue) for p in waiting)
        for user in {p.user for p in parties}:
            assert user.waiting == sum(len(p.queue) for p in waiting if p.user is user)
        assert shares.n_users == len({p.user for p in waiting if p.queue})
    for party in parties:
        shares.resume(party)
    while shares.waiting:
        assert naive.may_be_next(shares.next())
        take(shares, 1.0)
