"""Fair shares of worker time, between users first and then between the clients of each.

Each party carries the seconds it was served; whoever waits and was served least comes next. A party that was
away does not save up a claim: on its return it starts at the level of those who are served now (start-time fair
queueing; Goyal, Vin and Cheng, SIGCOMM 1996).
"""

from __future__ import annotations

from collections import deque
from operator import attrgetter
from typing import Generic, TypeVar

Item = TypeVar("Item")
_served = attrgetter("served")


class Party(Generic[Item]):
    """A client with its waiting items, in order."""

    __slots__ = ("queue", "served", "user")

    def __init__(self, user: User[Item]) -> None:
        self.user = user
        self.served = user.level
        self.queue: deque[Item] = deque()


class User(Generic[Item]):
    """A user with those of its clients that have something waiting."""

    __slots__ = ("level", "served", "waiting")

    def __init__(self, served: float) -> None:
        self.served = served
        self.level = 0.0
        #: An ordered set, so that ties are decided the same way every time.
        self.waiting: dict[Party[Item], None] = {}


class Shares(Generic[Item]):
    """What waits for the workers of one model."""

    def __init__(self) -> None:
        self._users: dict[str, User[Item]] = {}
        self._waiting: dict[User[Item], None] = {}
        self._level = 0.0

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def join(self, user: str) -> Party[Item]:
        """A new client of ``user``."""
        if user not in self._users:
            self._users[user] = User(self._level)
        return Party(self._users[user])

    def push(self, party: Party[Item], item: Item) -> None:
        """``item`` waits, behind the party's others."""
        party.queue.append(item)
        user = party.user
        if party in user.waiting:
            return
        party.served = max(party.served, user.level)
        user.waiting[party] = None
        if user not in self._waiting:
            user.served = max(user.served, self._level)
            self._waiting[user] = None

    def next(self) -> Party[Item]:
        """Whose turn it is."""
        user = next(iter(self._waiting)) if len(self._waiting) == 1 else min(self._waiting, key=_served)
        party = next(iter(user.waiting)) if len(user.waiting) == 1 else min(user.waiting, key=_served)
        self._level = user.served
        user.level = party.served
        return party

    def pop(self, party: Party[Item]) -> Item:
        """Takes the party's first item away."""
        item = party.queue.popleft()
        if not party.queue:
            del party.user.waiting[party]
            if not party.user.waiting:
                del self._waiting[party.user]
        return item

    @staticmethod
    def charge(party: Party[Item], seconds: float) -> None:
        """The party was served for ``seconds``, or gets back what it was charged too much."""
        party.served += seconds
        party.user.served += seconds
