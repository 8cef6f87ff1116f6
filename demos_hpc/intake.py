"""What clients and operators ask of a server: each frame becomes an event for the scheduler, or is answered at once."""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable
from typing import Any

from .accounts import Accounts
from .calls import Call
from .catalog import Catalog
from .data_plan import DataPlan
from .errors import BadFrame, DemosError, InternalError, InvalidInput, StaleRevision
from .events import Cancelled, Event, Lane, RequestArrived, UnitsArrived
from .logs import warn
from .messages import Flag, Kind, Operation, from_json, to_json
from .peers import Peer
from .plan import Plan
from .recall import Recall
from .refusals import refuse
from .resident_plan import ResidentPlan
from .served import Served
from .wire import Frame, pack

_METADATA, _SET_PARAMS = int(Operation.METADATA), int(Operation.SET_PARAMS)


class Intake:
    """The calls of all clients, from their arrival to their final reply."""

    def __init__(self, catalog: Catalog, accounts: Accounts, recall: Recall | None) -> None:
        self._catalog = catalog
        self._recall = recall
        self._accounts = accounts
        #: By their number.
        self.calls: dict[int, Call] = {}
        self._last_number = 0
        #: What operators may ask for: each gets what was asked with, and returns the answer.
        self.controls: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}

    def take_request(self, peer: Peer, frame: Frame, now: float) -> Event | None:
        header = frame.header
        if header.operation == _METADATA:
            name = _read_question(frame).get("model")
            self._catalog.ask(peer.link, header.id, name, lambda served: self._accounts.check(peer, served, _METADATA))
            return None
        if header.operation in self.controls:
            self._control(peer, frame)
            return None
        served = self._catalog.models.get(header.model)
        if served is None:
            raise InvalidInput(f"there is no model with handle {header.model} here")
        if peer.role == "worker":
            raise InvalidInput("a worker computes, and has nothing to ask")
        if header.id in peer.calls:
            raise InvalidInput(f"request id {header.id} is in use already")
        self._accounts.check(peer, served, header.operation)
        if header.operation == _SET_PARAMS:
            served.set_params(from_json(get_only_array(frame)))
            self._accounts.note_params(peer, served)
            if self._recall is not None:
                self._recall.forget(served)
            peer.link.send(pack(Kind.REPLY, id=header.id, flags=Flag.FINAL, revision=served.revision))
            return None
        if header.revision not in (0, served.revision):
            raise StaleRevision(
                f"the parameters of model {served.spec.name!r} have revision {served.revision} now;"
                f" this client pinned {header.revision}"
            )
        plan, lanes = self._plan(served, frame)
        call = Call(peer.link, frame, plan, served.defaults, served.revision, now)
        call.peer, call.model = peer, served.spec.name
        self._accounts.charge(call, now)
        served.statistics.requests += 1
        served.statistics.rows += header.n_rows
        if self._recall is not None and (reply := self._recall.find(call, served)) is not None:
            peer.link.send(reply)
            self._accounts.settle(call, now)
            return None
        number = peer.calls[header.id] = self._last_number = self._last_number + 1
        self.calls[number] = call
        return RequestArrived(
            number,
            peer.number,
            header.model,
            plan.work,
            plan.units,
            plan.first_units,
            now + header.deadline_ms / 1e3 if header.deadline_ms else math.inf,
            plan.merge_key(served.revision) if frame.is_inline else None,
            plan.period,
            plan.limit,
            plan.block,
            lanes,
        )

    def _plan(self, served: Served, frame: Frame) -> tuple[Plan | DataPlan | ResidentPlan, tuple[Lane, ...]]:
        """How a request is worked on, and where its rows are held, if anywhere."""
        try:
            plan = served.plan(frame)
            if not isinstance(plan, ResidentPlan):
                return plan, ()
            return plan, self._catalog.placement.find_lanes(served.handle, plan.asked, plan.edges)
        except DemosError:
            raise
        except Exception:  # a defect of ours, which must not cost more than this request
            warn(traceback.format_exc().strip())
            raise InternalError("this request could not be made sense of; the server's log has a traceback") from None

    def take_rows(self, peer: Peer, frame: Frame, now: float) -> Event | None:
        number = peer.calls.get(frame.header.id)
        if number is None:
            return None  # the request has failed meanwhile
        try:
            return UnitsArrived(number, self.calls[number].add(frame))
        except (InvalidInput, BadFrame) as error:
            refuse(peer.link, frame.header.id, error)
            peer.calls.pop(frame.header.id)  # it has its final reply
            self.calls[number].status = int(error.status)
            return Cancelled(number)

    def take_cancel(self, peer: Peer, frame: Frame, now: float) -> Event | None:
        number = peer.calls.get(frame.header.id)
        return None if number is None else Cancelled(number)

    def _control(self, peer: Peer, frame: Frame) -> None:
        self._accounts.check_operator(peer, frame.header.operation)
        answer = to_json(self.controls[frame.header.operation](_read_question(frame)))
        peer.link.send(pack(Kind.REPLY, [answer], id=frame.header.id, flags=Flag.FINAL))


def _read_question(frame: Frame) -> dict[str, Any]:
    """What is asked in JSON; nothing in particular where there is none."""
    question = from_json(get_only_array(frame)) if frame.header.n_arrays else {}
    if not isinstance(question, dict):
        raise BadFrame(f"a question is a JSON object, not {type(question).__name__}")
    return question


def get_only_array(frame: Frame) -> Any:
    """The array of a frame that has to have just one."""
    if len(frame.arrays) != 1:
        raise BadFrame(f"a frame of kind {frame.header.kind} with {len(frame.arrays)} arrays instead of one")
    return frame.arrays[0]
