"""Fair shares of worker time, between users first and then between the clients of each.

Each party carries the seconds it was served; whoever waits and was served least comes next. A party that was
away does not save up a claim: on its return it starts at the level of those who are served now (start-time fair
queueing; Goyal, Vin and Cheng, SIGCOMM 1996).

Whose turn it is stands in a heap of users and, for each, a heap of its parties. An entry keeps the seconds of the
time when it was made: seconds served since then count once it comes up, so that a charge costs no sorting; seconds
given back make a new entry. Thousands of clients thus cost little more than one.
"""

from __future__ import annotations

from collections import OrderedDict
from heapq import heappop, heappush, heapreplace
from itertools import count
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")
#: Seconds served when it was made; its number, by which the first to come is the first of equals; whose it is.
_Entry = tuple[float, int, Any]


class Party(Generic[Item]):
    """A client with its waiting items, in order."""

    __slots__ = ("is_suspended", "queue", "served", "turn", "turn_at", "user")

    def __init__(self, user: User[Item]) -> None:
        self.user = user
        self.served = user.level
        #: An ordered set: items leave at the front, or from anywhere when they are cancelled.
        self.queue: OrderedDict[Item, None] = OrderedDict()
        #: The number of its newest entry, 0 for none, and the seconds that stand in it.
        self.turn = 0
        self.turn_at = 0.0
        #: Whether nothing of it is served for now.
        self.is_suspended = False

    @property
    def waits(self) -> bool:
        return bool(self.queue) and not self.is_suspended


class User(Generic[Item]):
    """A user with those of its clients that have something waiting."""

    __slots__ = ("level", "served", "turn", "turn_at", "turns", "waiting")

    def __init__(self, served: float) -> None:
        self.served = served
        self.level = 0.0
        self.turns: list[_Entry] = []
        #: Items of all its parties.
        self.waiting = 0
        #: As those of a `Party`.
        self.turn = 0
        self.turn_at = 0.0

    @property
    def waits(self) -> bool:
        return self.waiting > 0


class Shares(Generic[Item]):
    """What waits for the same workers."""

    __slots__ = ("_level", "_numbers", "_turns", "_users", "n_users", "waiting")

    def __init__(self) -> None:
        #: Items of all users, and how many users have any.
        self.waiting = 0
        self.n_users = 0
        self._users: dict[str, User[Item]] = {}
        self._turns: list[_Entry] = []
        self._numbers = count(1)
        self._level = 0.0

    def join(self, user: str) -> Party[Item]:
        """A new client of ``user``."""
        if user not in self._users:
            self._users[user] = User(self._level)
        return Party(self._users[user])

    def push(self, party: Party[Item], item: Item) -> None:
        """``item`` waits, behind the party's others."""
        if party.is_suspended:
            party.queue[item] = None
            return
        if not party.queue:
            self._come(party)
        party.queue[item] = None
        party.user.waiting += 1
        self.waiting += 1

    def suspend(self, party: Party[Item]) -> None:
        """Nothing of the party is served until `resume`."""
        if not party.is_suspended:
            party.is_suspended = True
            if party.queue:
                party.user.waiting -= len(party.queue)
                self.waiting -= len(party.queue)
                self.n_users -= not party.user.waiting

    def resume(self, party: Party[Item]) -> None:
        """The party is served again, as one that was away."""
        if party.is_suspended:
            party.is_suspended = False
            if party.queue:
                self._come(party)
                party.user.waiting += len(party.queue)
                self.waiting += len(party.queue)

    def skip(self, party: Party[Item]) -> None:
        """It is the party's turn, as nothing waits."""
        self._return(party)
        self._level = party.user.served
        party.user.level = party.served

    def next(self) -> Party[Item]:
        """Whose turn it is; something has to wait."""
        user: User[Item] = self._first(self._turns) if len(self._turns) > 1 else self._turns[0][2]
        party: Party[Item] = self._first(user.turns) if len(user.turns) > 1 else user.turns[0][2]
        self._level = user.served
        user.level = party.served
        return party

    def remove(self, party: Party[Item], item: Item) -> None:
        """``item`` of this party waits no more."""
        del party.queue[item]
        if not party.is_suspended:
            user = party.user
            user.waiting -= 1
            self.waiting -= 1
            if not user.waiting:
                self.n_users -= 1

    def charge(self, party: Party[Item], seconds: float) -> None:
        """The party was served for ``seconds``, or gets back what it was charged too much."""
        user = party.user
        party.served += seconds
        user.served += seconds
        if seconds < 0:
            if party.turn and party.served < party.turn_at:
                heappush(user.turns, self._enter(party))
            if user.turn and user.served < user.turn_at:
                heappush(self._turns, self._enter(user))

    def _come(self, party: Party[Item]) -> None:
        """The party has something waiting again."""
        self._return(party)
        if not party.user.waiting:
            self.n_users += 1
        if not party.turn:
            heappush(party.user.turns, self._enter(party))
        if not party.user.turn:
            heappush(self._turns, self._enter(party.user))

    def _return(self, party: Party[Item]) -> None:
        """A party that was away starts at the level of those who are served now."""
        user = party.user
        party.served = max(party.served, user.level)
        if not user.waiting:
            user.served = max(user.served, self._level)

    def _enter(self, member: Party[Item] | User[Item]) -> _Entry:
        """A new entry, which makes that of before void."""
        member.turn, member.turn_at = next(self._numbers), member.served
        return member.turn_at, member.turn, member

    def _first(self, turns: list[_Entry]) -> Any:
        """Of those in ``turns`` that have something waiting, the one that was served least."""
        while len(turns) > 1:
            served, number, member = turns[0]
            if number != member.turn:
                heappop(turns)
            elif not member.waits:
                heappop(turns)
                member.turn = 0
            elif served < member.served:
                heapreplace(turns, self._enter(member))
            else:
                break
        return turns[0][2]
