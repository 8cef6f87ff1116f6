"""`reference`: equal references have equal bytes, and nothing else becomes one."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demos_hpc.errors import BadFrame, InvalidInput
from demos_hpc.reference import LAST, MOST_BYTES, MOST_COLUMNS, Reference

CHECK = settings(derandomize=True, deadline=None)
PLAIN = Reference(dataset="events", identity="0123456789abcdef", rows=10, width=3)
FIELDS = replace(PLAIN, columns=("x", "y", "z"), weights="w")
BESIDE = replace(PLAIN, weights="w", weights_identity="fedcba9876543210")
UPLOAD = Reference(upload="5" * 64, weights=LAST, rows=2**40, width=1)
ALL = [PLAIN, FIELDS, BESIDE, UPLOAD]
NAMES = st.text(min_size=1, max_size=20)


@st.composite
def references(draw: st.DrawFn) -> Reference:
    width = draw(st.integers(1, 5))
    rows = draw(st.integers(0, 2**42))
    if draw(st.booleans()):
        digest = draw(st.text("0123456789abcdef", min_size=64, max_size=64))
        return Reference(upload=digest, weights=draw(st.sampled_from(["", LAST])), rows=rows, width=width)
    columns = draw(st.sampled_from([(), tuple(draw(st.lists(NAMES, min_size=width, max_size=width)))]))
    beside = draw(st.booleans())
    weights = draw(NAMES) if beside or (columns and draw(st.booleans())) else ""
    identity = draw(NAMES) if beside else ""
    return Reference(draw(NAMES), "", draw(NAMES), columns, weights, identity, rows, width)


@CHECK
@given(references())
def test_a_reference_comes_back(reference: Reference) -> None:
    data = reference.to_bytes()
    back = Reference.from_bytes(data)
    assert back == reference
    assert hash(back) == hash(reference)
    assert back.to_bytes() == data


@pytest.mark.parametrize("reference", ALL, ids=["plain", "fields", "beside", "upload"])
def test_spacing_order_and_what_is_empty_make_no_difference(reference: Reference) -> None:
    values = {name: value for name, value in reversed(asdict(reference).items()) if value}
    assert Reference.from_bytes(json.dumps(values, indent=3).encode()).to_bytes() == reference.to_bytes()


def test_bytes_are_what_they_were() -> None:
    """Memory is named after them: other bytes are other memory."""
    assert FIELDS.to_bytes() == (
        b'{"columns":["x","y","z"],"dataset":"events","identity":"0123456789abcdef","rows":10,"upload":"",'
        b'"weights":"w","weights_identity":"","width":3}'
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"width": 0}, "0 columns"),
        ({"width": MOST_COLUMNS + 1}, "65537 columns"),
        ({"rows": -1}, "-1 rows"),
        ({"rows": 2**42}, f"{2**42} rows"),
        ({"dataset": ""}, "of a dataset or of an upload"),
        ({"upload": "5" * 64}, "of a dataset or of an upload"),
        ({"dataset": "", "upload": "../../etc/passwd"}, "64 hexadecimal digits"),
        ({"dataset": "", "upload": "5" * 65}, "64 hexadecimal digits"),
        ({"dataset": "", "upload": "5" * 64}, "neither identities"),
        ({"dataset": "", "upload": "5" * 64, "identity": "", "weights": "w"}, "only as 'last'"),
        ({"dataset": "", "upload": "5" * 64, "identity": "", "columns": ("a", "b", "c")}, "nor columns"),
        ({"identity": ""}, "without the identity"),
        ({"weights_identity": "a"}, "weights without a name"),
        ({"columns": ("a", "b")}, "2 columns for 3 observables"),
        ({"weights": "w"}, "no fields, so its weights 'w' are another dataset"),
    ],
)
def test_contradictions_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        replace(PLAIN, **changes)
    with pytest.raises(BadFrame, match=words):
        Reference.from_bytes(json.dumps({**asdict(PLAIN), **changes}).encode())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rows", 10.0),
        ("rows", True),
        ("rows", "10"),
        ("rows", None),
        ("width", [3]),
        ("dataset", None),
        ("dataset", 5),
        ("identity", ["a"]),
        ("columns", "xyz"),
        ("columns", {"x": 1}),
        ("columns", ["x", "y", 3]),
        ("columns", None),
        ("weights", False),
        ("filter", "x > 0"),
    ],
)
def test_members_of_the_wrong_type_and_unknown_ones_are_refused(name: str, value: Any) -> None:
    with pytest.raises(BadFrame, match=name):
        Reference.from_bytes(json.dumps({**asdict(PLAIN), name: value}).encode())


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b"null", b"7", b"\xff\xfe", b"[" * 5000, b"1" * 5000, b'{"rows": 1e999, "width": NaN}']
)
def test_what_is_no_reference_is_refused(data: bytes) -> None:
    with pytest.raises(BadFrame):
        Reference.from_bytes(data)


@CHECK
@given(st.binary(max_size=100))
def test_noise_is_refused(data: bytes) -> None:
    with pytest.raises(BadFrame):
        Reference.from_bytes(data)


def test_a_reference_is_short() -> None:
    long = replace(PLAIN, columns=("x" * MOST_BYTES, "y", "z"))
    with pytest.raises(InvalidInput, match="at most 65536"):
        long.to_bytes()
    with pytest.raises(BadFrame, match="at most 65536"):
        Reference.from_bytes(json.dumps(asdict(long)).encode())
