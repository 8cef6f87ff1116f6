"""Turns in the heaps of shares; who gets how much is in test_scheduler.py."""

from __future__ import annotations

from demos_hpc.shares import Shares


def test_what_is_given_back_leaves_nothing_behind() -> None:
    """A server gives back seconds with every chunk that cost less than was expected, for months."""
    shares: Shares[int] = Shares()
    parties = [shares.join(user) for user in ("ada", "ada", "bob")]
    for item, party in enumerate(parties):
        shares.push(party, item)
    for _ in range(1000):
        party = shares.next()
        shares.charge(party, 2.0)
        shares.next()
        shares.charge(party, -1.0)
    users = shares._users.values()
    assert sum(user.served for user in users) == 1000.0
    assert max(len(turns) for turns in (shares._turns, *(user.turns for user in users))) < 10
