"""What is said as JSON, and the numbers' names."""

from __future__ import annotations

import math
import traceback
from dataclasses import FrozenInstanceError
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demos_hpc.errors import EXCEPTION_OF, BadFrame, Busy, InternalError, ModelFailed, RemoteTraceback, Status
from demos_hpc.messages import (
    GRADIENTS,
    LIKELIHOODS,
    Failure,
    Flag,
    Hello,
    Offer,
    Operation,
    Welcome,
    from_json,
    to_json,
)

CHECK = settings(derandomize=True, deadline=None)
HELLO = {"role": "client", "group": "fit.py", "host": "node17", "pid": 4711, "user": "ada", "bell": ""}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


def as_bytes(text: bytes) -> Any:
    return np.frombuffer(text, dtype=np.uint8)


# ---- JSON ---------------------------------------------------------------------------------------------------


@CHECK
@given(st.dictionaries(st.text(), JSON, max_size=3))
def test_json_comes_back(value: dict[str, Any]) -> None:
    array = to_json(value)
    assert (array.dtype, array.ndim) == (np.uint8, 1)
    assert from_json(array) == value


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_json_has_no_nan_and_no_infinity(value: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        to_json({"x": value})


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b'{"a": 1} {}',
        b"\xff\xfe{\x00}\x00",  # UTF-16: the wire's JSON is UTF-8
        b"\xef\xbb\xbf{}",
        b"[" * 100_000,
        b"9" * 10_000,
    ],
)
def test_text_that_is_no_json_is_refused(text: bytes) -> None:
    with pytest.raises(BadFrame, match="should be JSON"):
        from_json(as_bytes(text))


@CHECK
@given(st.binary(max_size=50))
def test_noise_is_json_or_refused(noise: bytes) -> None:
    try:
        from_json(as_bytes(noise))
    except BadFrame as error:
        assert str(len(noise)) in str(error)  # noqa: PT017  (either way is right)


# ---- messages -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "message",
    [
        Hello(**HELLO),  # type: ignore[arg-type]
        Welcome([HELLO], "3f"),
        Welcome([HELLO], "3f", "{}"),
        Offer("rank 3 on node17", "numpy 2", spec={"name": "gauss"}),
        Offer("rank 3 on node17", "numpy 2", failure={"status": 3, "message": "no such file"}),
        Failure(5, "queues are full", retry_after=0.5),
    ],
)
def test_message_comes_back(message: Hello | Welcome | Offer | Failure) -> None:
    assert type(message).from_dict(from_json(to_json(message.to_dict()))) == message


def test_messages_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        Hello.from_dict(HELLO).role = "server"  # type: ignore[misc]


def test_members_of_a_newer_minor_version_are_left_out() -> None:
    assert Hello.from_dict(HELLO | {"favorite_color": "blue"}) == Hello.from_dict(HELLO)


def test_members_that_have_a_default_may_be_missing() -> None:
    assert Failure.from_dict({"status": 3, "message": "it raised"}) == Failure(3, "it raised", "", 0.0)


@pytest.mark.parametrize(
    "values",
    [
        None,
        [],
        "client",
        {},
        {name: value for name, value in HELLO.items() if name != "pid"},
        HELLO | {"role": "spectator"},
        HELLO | {"role": ["client"]},
        HELLO | {"pid": "4711"},
        HELLO | {"bell": None},
    ],
)
def test_hello_that_is_none_is_refused(values: Any) -> None:
    with pytest.raises(BadFrame, match="Hello"):
        Hello.from_dict(values)


@pytest.mark.parametrize("spec", [[], "gauss", 1])
def test_offer_with_something_else_than_a_spec_is_refused(spec: Any) -> None:
    with pytest.raises(BadFrame, match="spec"):
        Offer.from_dict({"worker": "rank 3", "fingerprint": "", "spec": spec})


def test_whole_numbers_are_numbers() -> None:
    for seconds in (2, 2**70):  # JSON tells no float from an integer
        retry_after = Failure.from_dict({"status": 5, "message": "", "retry_after": seconds}).retry_after
        assert (type(retry_after), retry_after) == (float, seconds)
    with pytest.raises(BadFrame, match="retry_after of the wrong type"):
        Failure.from_dict({"status": 5, "message": "", "retry_after": 10**400})


# ---- failures -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [status for status in Status if status])
def test_failure_becomes_the_exception_it_was(status: Status) -> None:
    sent = EXCEPTION_OF[status]("params has shape (4,)")
    failure = Failure.from_dict(from_json(to_json(Failure.of(sent).to_dict())))
    error = failure.to_exception()
    assert type(error) is type(sent)
    assert str(error) == "params has shape (4,)"
    assert error.__cause__ is None


def test_failure_brings_the_traceback_as_its_cause() -> None:
    try:
        raise ZeroDivisionError("in the model")
    except ZeroDivisionError as cause:
        text = "".join(traceback.format_exception(cause))
    error = Failure.of(ModelFailed("log_density() raised"), text).to_exception()
    assert isinstance(error.__cause__, RemoteTraceback)
    shown = "".join(traceback.format_exception(error))
    assert "ZeroDivisionError: in the model" in shown
    assert shown.index("ZeroDivisionError") < shown.index("log_density() raised")


def test_busy_says_when_to_try_again() -> None:
    busy = Busy("queues are full")
    busy.retry_after = 0.25
    error = Failure.of(busy).to_exception()
    assert isinstance(error, Busy)
    assert error.retry_after == 0.25


@pytest.mark.parametrize("status", [0, 99, -1])
def test_status_of_a_newer_version_is_an_internal_error(status: int) -> None:
    error = Failure.from_dict({"status": status, "message": "words"}).to_exception()
    assert type(error) is InternalError
    assert str(error) == "words"


# ---- names --------------------------------------------------------------------------------------------------


def test_operations_are_called_what_the_methods_are() -> None:
    assert Operation.LOG_DENSITY_GRADIENT.title == "log_density_gradient"


def test_sets_of_operations() -> None:
    assert {op for op in Operation if "LIKELIHOOD" in op.name} == LIKELIHOODS
    assert {op for op in Operation if "GRADIENT" in op.name} == GRADIENTS


def test_flags_are_single_bits() -> None:
    assert [flag.value.bit_count() for flag in Flag] == [1] * len(Flag)
