"""The models of a server: what its workers offer, and what answers those who ask for one."""

from __future__ import annotations

from .errors import DemosError, InvalidInput, ModelFailed
from .messages import Failure, Offer
from .served import Served
from .spec import ModelSpec


class Catalog:
    """The models by their handle; ``n_offers`` workers are going to say what they serve."""

    def __init__(self, n_offers: int, max_request_bytes: int) -> None:
        self.models: dict[int, Served] = {}
        self._offers_due = n_offers
        self._max_request_bytes = max_request_bytes
        self._load_failure: DemosError | None = None

    def add(self, offer: Offer) -> Served:
        """The model that a worker offers; raises what kept it from having one."""
        if offer.failure is not None:
            raise Failure.from_dict(offer.failure).to_exception()
        served = self._find_or_add(ModelSpec.from_dict(offer.spec or {}))
        self._offers_due -= 1
        served.workers += 1
        if offer.fingerprint not in served.fingerprints:
            served.fingerprints.append(offer.fingerprint)
        return served

    def note_failure(self, error: DemosError) -> None:
        """A worker has nothing to offer, for this reason."""
        self._offers_due -= 1
        self._load_failure = error

    def _find_or_add(self, spec: ModelSpec) -> Served:
        for served in self.models.values():
            if served.spec.name == spec.name:
                if served.spec != spec:
                    raise ModelFailed(f"its model {spec.name!r} has another spec than the other workers'")
                return served
        handle = len(self.models) + 1
        self.models[handle] = Served(handle, spec, self._max_request_bytes)
        return self.models[handle]

    def find(self, name: str | None) -> Served | None:
        """The model of this name or UUID, the only one where no name is given; None where it may still come.

        Raises
        ------
        InvalidInput
            Where there is none, or several and no name.
        DemosError
            Where there is none because it could not be loaded.
        """
        found = [s for s in self.models.values() if name in (None, s.spec.name, s.spec.uuid)]
        if len(found) == 1 and (name is not None or not self._offers_due):
            return found[0]
        if self._offers_due:
            return None
        if self._load_failure is not None and not found:
            raise self._load_failure
        names = ", ".join(repr(s.spec.name) for s in self.models.values()) or "none"
        problem = "several models are served: name one" if found else f"there is no model {name!r} here"
        raise InvalidInput(f"{problem}; there are: {names}")
