"""Which place holds which stripe of which dataset: pure, and the same for the same calls in the same order.

A *place* is a set of workers that share memory, a *stripe* a fixed run of rows of a dataset. The places where a model's
workers stand share the stripes of a dataset in proportion to their workers. Once given out, stripes stay: only as many
move as must when workers come or go, first those that return to where they were. Nothing but speed depends on it.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Hashable, Mapping, Sequence
from itertools import groupby

from .events import Lane

#: Datasets of which it is remembered where they are.
MOST_KEYS = 1024

#: The place of what has none yet.
_NOWHERE = object()


class Stripes:
    """Where the stripes of one dataset are."""

    __slots__ = ("_former", "_homes", "owners", "runs", "version")

    def __init__(self, n_stripes: int) -> None:
        #: The place of each, the one before that, and the first.
        self.owners: list[Hashable] = [_NOWHERE] * n_stripes
        self._former: list[Hashable] = [_NOWHERE] * n_stripes
        self._homes: list[Hashable] = [_NOWHERE] * n_stripes
        #: The same as runs: place, first stripe, end.
        self.runs: list[tuple[Hashable, int, int]] = []
        #: Of the workers to whom they were given out.
        self.version = 0

    def move(self, quotas: Mapping[Hashable, int]) -> None:
        """Gives each place as many stripes as its quota; no more of them change places than have to."""
        need = Counter(quotas)
        need.subtract(self.owners)
        loose = [nth for nth, owner in enumerate(self.owners) if owner not in quotas]
        for place in quotas:
            if need[place] < 0:
                own = [nth for nth, owner in enumerate(self.owners) if owner == place]
                # Of equals the last, so that the others stay together.
                own.sort(key=lambda nth: (self._cling(nth, need), -nth))
                loose += own[: -need[place]]
        need = Counter({place: need[place] for place in quotas if need[place] > 0})
        loose = self._send(sorted(loose), self._homes, need)
        loose = self._send(loose, self._former, need)
        for nth in loose:
            place = self.owners[nth - 1] if nth else _NOWHERE
            if need[place] <= 0:
                place = next(place for place, n in need.items() if n > 0)
            self._give(nth, place, need)
        self.runs = []
        end = 0
        for place, run in groupby(self.owners):
            first, end = end, end + len(list(run))
            self.runs.append((place, first, end))

    def _cling(self, nth: int, need: Mapping[Hashable, int]) -> int:
        """How much a stripe would rather stay where it is than move to where it is needed."""
        home = self._homes[nth]
        if need[home] > 0:
            return 0
        if home == self.owners[nth]:
            return 3
        return 1 if need[self._former[nth]] > 0 else 2

    def _send(self, loose: list[int], places: list[Hashable], need: Counter[Hashable]) -> list[int]:
        """Gives stripes to their ``places`` as far as these need any; returns the others."""
        rest = []
        for nth in loose:
            if need[places[nth]] > 0:
                self._give(nth, places[nth], need)
            else:
                rest.append(nth)
        return rest

    def _give(self, nth: int, place: Hashable, need: Counter[Hashable]) -> None:
        if self._homes[nth] is _NOWHERE:
            self._homes[nth] = place
        self._former[nth], self.owners[nth] = self.owners[nth], place
        need[place] -= 1


class Placement:
    """Where the stripes of datasets are, for any number of models."""

    def __init__(self, most_keys: int = MOST_KEYS) -> None:
        self._most_keys = most_keys
        #: Workers at each place, by model; places in the order in which they came.
        self._workers: dict[int, dict[Hashable, int]] = {}
        #: When they last came or went: the number of the event.
        self._versions: dict[int, int] = {}
        self._n_events = 0
        #: Those used last stand last.
        self._stripes: OrderedDict[tuple[int, Hashable], Stripes] = OrderedDict()
        #: Stripes of all datasets at each place, by model.
        self._held: dict[int, Counter[Hashable]] = {}

    def join(self, model: int, place: Hashable) -> None:
        """A worker of this model stands at this place."""
        workers = self._workers.setdefault(model, {})
        workers[place] = workers.get(place, 0) + 1
        self._note_change(model)

    def leave(self, model: int, place: Hashable) -> None:
        """A worker of this model stands at this place no more."""
        workers = self._workers[model]
        workers[place] -= 1
        if not workers[place]:
            del workers[place]
        self._note_change(model)

    def find_lanes(self, model: int, key: Hashable, edges: Sequence[int]) -> tuple[Lane, ...]:
        """Where to compute a request over the dataset ``key``; () where there is no choice.

        ``edges`` has the first unit of each stripe, in order, and then the number of units.
        """
        if len(self._workers.get(model, ())) < 2:
            return ()
        lanes: list[Lane] = []
        for place, first, end in self._find(model, key, len(edges) - 1).runs:
            count = edges[end] - edges[first]
            if not count:
                continue
            if lanes and lanes[-1].place == place:  # only stripes without units lie between
                before = lanes.pop()
                lanes.append(Lane(place, before.first, before.count + count))
            else:
                lanes.append(Lane(place, edges[first], count))
        return tuple(lanes)

    def _note_change(self, model: int) -> None:
        self._n_events += 1
        self._versions[model] = self._n_events

    def _find(self, model: int, key: Hashable, n_stripes: int) -> Stripes:
        """The stripes of a dataset, where they should be now."""
        stripes = self._stripes.get((model, key))
        if stripes is not None and len(stripes.owners) != n_stripes:
            self._forget(model, key)
            stripes = None
        if stripes is None:
            stripes = self._stripes[model, key] = Stripes(n_stripes)
            while len(self._stripes) > self._most_keys:
                self._forget(*next(iter(self._stripes)))
        self._stripes.move_to_end((model, key))
        if stripes.version != self._versions[model]:
            held = self._held.setdefault(model, Counter())
            mine = Counter(stripes.owners)
            held.subtract(mine)
            stripes.move(share_out(n_stripes, self._workers[model], mine, held))
            held.update(stripes.owners)
            self._held[model] = +held
            stripes.version = self._versions[model]
        return stripes

    def _forget(self, model: int, key: Hashable) -> None:
        self._held[model].subtract(self._stripes.pop((model, key)).owners)


def share_out(
    n_stripes: int, workers: Mapping[Hashable, int], mine: Mapping[Hashable, int], held: Mapping[Hashable, int]
) -> dict[Hashable, int]:
    """How many stripes each place gets: its share, rounded up or down.

    Up for those that then keep what they have of these stripes (``mine``); then for those whose shares lose most
    otherwise (largest remainder); then for those that hold least of all other datasets (``held``).
    """
    total = sum(workers.values())
    quotas = {place: n_stripes * n // total for place, n in workers.items()}
    uneven = [place for place, n in workers.items() if n_stripes * n % total]
    uneven.sort(
        key=lambda place: (
            mine.get(place, 0) <= quotas[place],
            -(n_stripes * workers[place] % total),
            held.get(place, 0) / workers[place],
        )
    )
    for place in uneven[: n_stripes - sum(quotas.values())]:
        quotas[place] += 1
    return quotas
