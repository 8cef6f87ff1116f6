"""The status table, and what callers catch."""

from __future__ import annotations

import inspect
from concurrent.futures import CancelledError

import pytest

from demos_hpc import errors
from demos_hpc.errors import EXCEPTION_OF, DemosError, RemoteTraceback, Status

EXCEPTIONS = [value for value in vars(errors).values() if inspect.isclass(value) and issubclass(value, DemosError)]


def test_every_status_but_ok_has_an_exception() -> None:
    assert set(EXCEPTION_OF) == set(Status) - {Status.OK}


@pytest.mark.parametrize("status", [status for status in Status if status])
def test_exception_names_its_status(status: Status) -> None:
    assert EXCEPTION_OF[status].status is status


def test_every_exception_has_a_status_that_leads_back_to_it() -> None:
    """Those of one process only, which never travel, count as internal."""
    local = {DemosError, errors.LaunchError, errors.RegistryError}
    assert {EXCEPTION_OF[e.status] for e in EXCEPTIONS if e not in local} == set(EXCEPTIONS) - local
    assert {e.status for e in local} == {Status.INTERNAL}


@pytest.mark.parametrize("exception", EXCEPTIONS)
def test_exception_says_what_it_was_given_and_is_documented(exception: type[DemosError]) -> None:
    assert str(exception("params has shape (4,)")) == "params has shape (4,)"
    assert exception.__doc__


@pytest.mark.parametrize(
    ("exception", "builtin"),
    [
        (errors.InvalidInput, ValueError),
        (errors.NotOffered, NotImplementedError),
        (errors.Cancelled, CancelledError),
        (errors.DeadlineExceeded, TimeoutError),
        (errors.TooLarge, ValueError),
        (errors.BadFrame, ValueError),
        (errors.ServerLost, ConnectionError),
        (errors.RegistryError, OSError),
        (errors.ModelNotFound, LookupError),
    ],
)
def test_exception_is_caught_as_the_built_in_one(exception: type[DemosError], builtin: type[Exception]) -> None:
    assert issubclass(exception, builtin)


def test_remote_traceback_begins_on_a_line_of_its_own() -> None:
    assert str(RemoteTraceback("Traceback (most recent call last): ...")).startswith("\nTraceback")
