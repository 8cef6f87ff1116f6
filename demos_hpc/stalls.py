"""Clients that do not take their answers: nothing more is computed for them, and after a while they are given up."""

from __future__ import annotations

from .events import ClientResumed, ClientStalled, Event
from .logs import warn
from .peers import Peer


class Stalls:
    """Those who leave more than ``most_bytes`` of answers untaken, for at most ``timeout`` seconds."""

    def __init__(self, most_bytes: int, timeout: float) -> None:
        self._most_bytes = most_bytes
        self._timeout = timeout
        #: Since when a client has not taken anything, and what waited for it then.
        self._stalled: dict[Peer, tuple[float, int]] = {}

    def __bool__(self) -> bool:
        return bool(self._stalled)

    def check(self, peer: Peer, now: float) -> Event | None:
        """Something was sent to this client."""
        unsent = peer.link.unsent_bytes
        if unsent <= self._most_bytes or peer in self._stalled:
            return None
        self._stalled[peer] = now, unsent
        return ClientStalled(peer.number)

    def forget(self, peer: Peer) -> None:
        """The client is gone."""
        self._stalled.pop(peer, None)

    def look(self, now: float) -> tuple[list[Event], list[Peer]]:
        """What the scheduler is to be told, and the clients that are given up."""
        events: list[Event] = []
        lost = []
        for peer, (since, before) in list(self._stalled.items()):
            unsent = peer.link.unsent_bytes
            if unsent < self._most_bytes / 2:
                del self._stalled[peer]
                events.append(ClientResumed(peer.number))
                continue
            if unsent < before:
                since = now
            self._stalled[peer] = since, unsent  # more than before is no sign of life: what was begun is answered
            if now - since > self._timeout:
                warn(f"{peer.link.name} has taken no answers for {self._timeout:g} s and is given up")
                lost.append(peer)
        return events, lost
