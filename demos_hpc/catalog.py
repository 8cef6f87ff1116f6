"""The models of a server: what its workers offer, and what answers those who ask for one."""

from __future__ import annotations

from collections.abc import Callable

from .errors import DemosError, InvalidInput, ModelFailed
from .logs import warn
from .messages import Failure, Flag, Kind, Offer, to_json
from .placement import Placement
from .refusals import send_failure
from .served import ParamStore, Served
from .spec import ModelSpec
from .transport import Link
from .wire import pack


class Catalog:
    """The models by their handle; ``n_offers`` workers are going to say what they serve."""

    def __init__(self, n_offers: int, max_request_bytes: int) -> None:
        self.models: dict[int, Served] = {}
        #: At which places the data of models are held.
        self.placement = Placement()
        #: Where server-side parameters are kept, if anywhere.
        self.store: Callable[[str], ParamStore] | None = None
        self._offers_due = n_offers
        self._max_request_bytes = max_request_bytes
        self._load_failure: DemosError | None = None
        self._conflicts: dict[str, DemosError] = {}
        #: Who asked for which model, before all offers were there.
        self._asking: list[tuple[Link, int, str | None, Callable[[Served], None]]] = []

    def add(self, offer: Offer, *, is_late: bool = False) -> Served:
        """The model that a worker offers; raises what kept it from having one.

        One that came late, through the door, and differs from the others, is itself in the wrong.
        """
        if offer.failure is not None:
            raise Failure.from_dict(offer.failure).to_exception()
        served = self._find_or_add(ModelSpec.from_dict(offer.spec or {}), offer.source, is_late=is_late)
        self._offers_due -= 1
        if is_late:
            self._load_failure = None
        served.workers += 1
        self.placement.join(served.handle, offer.place)
        if offer.fingerprint not in served.fingerprints:
            served.fingerprints.append(offer.fingerprint)
        return served

    def remove(self, served: Served, place: str) -> None:
        """A worker of this model, from this place, is gone."""
        served.workers -= 1
        self.placement.leave(served.handle, place)

    def note_failure(self, error: DemosError, *, is_late: bool = False) -> None:
        """A worker has nothing to offer, for this reason; of one that came late nobody hears while others serve."""
        self._offers_due -= 1
        if not (is_late and self.models):
            self._load_failure = error

    def _find_or_add(self, spec: ModelSpec, source: str, *, is_late: bool) -> Served:
        for served in self.models.values():
            if served.spec.name == spec.name:
                if served.spec == spec and served.source == source:
                    return served
                what = "spec" if served.spec != spec else "code"
                error = ModelFailed(
                    f"two different models are called {spec.name!r}: workers differ in its {what}; rename one of them"
                )
                if not is_late:
                    self._conflicts[spec.name] = error
                raise error
        handle = len(self.models) + 1
        served = self.models[handle] = Served(handle, spec, source, self._max_request_bytes)
        if self.store is not None:
            self._keep(served, self.store(spec.uuid))
        return served

    def _keep(self, served: Served, store: ParamStore) -> None:
        """The model's parameters are those in ``store``; what cannot be taken over from there is told of."""
        try:
            served.keep_in(store)
        except InvalidInput as error:
            warn(str(error))
        for problem in store.problems:
            warn(f"stored parameters of model {served.spec.name!r} are left out: {problem}")

    def find(self, name: str | None) -> Served | None:
        """The model of this name or UUID, the only one where no name is given; None where it may still come.

        Raises
        ------
        InvalidInput
            Where there is none, or several and no name.
        DemosError
            Where there is none because it could not be loaded.
        """
        if self._offers_due > 0:
            return None
        found = [s for s in self.models.values() if name in (None, s.spec.name, s.spec.uuid)]
        if len(found) == 1:
            if conflict := self._conflicts.get(found[0].spec.name):
                raise conflict
            return found[0]
        if self._load_failure is not None and not found:
            raise self._load_failure
        names = ", ".join(repr(s.spec.name) for s in self.models.values()) or "none"
        problem = "several models are served: name one" if found else f"there is no model {name!r} here"
        raise InvalidInput(f"{problem}; there are: {names}")

    def ask(self, link: Link, number: int, name: str | None, check: Callable[[Served], None]) -> None:
        """A client's request ``number`` is for the metadata of this model: answered now, or when it is known.

        ``check`` raises where the client has no right to them.
        """
        self._asking.append((link, number, name, check))
        self.answer_all()

    def forget(self, link: Link) -> None:
        """Whoever asked over this link is gone."""
        self._asking = [asked for asked in self._asking if asked[0] is not link]

    def answer_all(self) -> None:
        """Answers who has asked for a model, as far as it is known whether there is one."""
        asking, self._asking = self._asking, []
        for link, number, name, check in asking:
            try:
                served = self.find(name)
                if served is not None:
                    check(served)
            except DemosError as error:
                send_failure(link, number, Failure.of(error, str(error.__cause__ or "").strip()))
                continue
            if served is None:
                self._asking.append((link, number, name, check))
            else:
                link.send(pack(Kind.REPLY, [to_json(served.describe())], id=number, flags=Flag.FINAL))
