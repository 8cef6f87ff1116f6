"""Dtypes, strings and lists as they travel: there and back, and whatever a server may say instead."""

from __future__ import annotations

import json
from typing import Any

import h5py
import numpy as np
import pytest

from demos_hpc.elements import (
    decode,
    describe_descr,
    describe_value,
    encode,
    has_gaps,
    read_dtype,
    read_value,
    strip,
)
from demos_hpc.errors import InternalError

PADDED = np.dtype([("a", "i1"), ("b", "f8")], align=True)
DTYPES = [
    np.dtype(text)
    for text in ("f2", "f4", ">f8", "i1", ">u2", "u8", "?", "c8", ">c16", "S1", "S300", "V5", "U4", "M8[ns]", "g")
]
COMPOUNDS = [
    np.dtype([("a", "i4"), ("b", ">f8"), ("naïve name", "S5")]),
    PADDED,
    np.dtype({"names": ["a", "b"], "formats": ["i2", "f4"], "offsets": [3, 9], "itemsize": 20}),
    np.dtype([("v", "f4", (3,)), ("m", "i2", (2, 2))]),
    np.dtype([("inner", PADDED), ("more", [("x", ">i2"), ("y", [("z", "f8", (2,))])], (2,))]),
]
ARRAYS = [np.dtype(("f4", (3,))), np.dtype((COMPOUNDS[0], (2, 2))), np.dtype((np.dtype(("i2", (3,))), (2,)))]


def travel(value: Any) -> Any:
    """Through JSON."""
    return json.loads(json.dumps(value, allow_nan=False))


# ---- dtypes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [*DTYPES, *COMPOUNDS, *ARRAYS], ids=str)
def test_a_dtype_travels(dtype: np.dtype[Any]) -> None:
    found = read_dtype(travel(describe_descr(dtype)))
    assert np.zeros(2, found).shape == np.zeros(2, dtype).shape
    assert np.zeros(2, found).dtype == np.zeros(2, dtype).dtype
    assert found.itemsize == dtype.itemsize
    if dtype.names is not None:
        assert found.fields == strip(dtype).fields


def test_an_array_of_arrays_has_the_axes_of_both() -> None:
    assert describe_descr(ARRAYS[2]) == ["<i2", [2, 3]]
    assert np.zeros(5, read_dtype(["<i2", [2, 3]])).shape == (5, 2, 3)


def test_what_h5py_notes_beside_a_dtype_stays_here() -> None:
    enum = h5py.enum_dtype({"red": 1, "green": 2}, "i2")
    assert strip(enum).metadata is None
    assert strip(np.dtype([("a", enum), ("b", enum, (2,))])) == np.dtype([("a", "i2"), ("b", "i2", (2,))])
    assert describe_descr(enum) == "<i2"


@pytest.mark.parametrize(
    "described",
    [None, 5, "", "x9", "|O", "V0", [], [[]], [["a", "|O"]], [["a"]], ["<f8"], ["<f8", [-1]], ["<f8", "a"],
     {"a": 1}, [["a", "<f8"], ["a", "<f8"]], [["a", [["b", "|O"]]]]],
    ids=str,
)  # fmt: skip
def test_what_is_no_dtype_is_the_servers_fault(described: Any) -> None:
    with pytest.raises(InternalError, match="the server describes a dtype as"):
        read_dtype(described)


def test_objects_are_those_of_strings() -> None:
    assert read_dtype("O") == np.dtype(object)


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [(np.dtype("f8"), False), (COMPOUNDS[0], False), (PADDED, True), (COMPOUNDS[4], True), (ARRAYS[1], False),
     (np.dtype((PADDED, (2,))), True)],
    ids=str,
)  # fmt: skip
def test_gaps_are_seen(dtype: np.dtype[Any], expected: bool) -> None:
    assert has_gaps(dtype) == expected


# ---- strings and lists --------------------------------------------------------------------------------------


def make_objects(items: list[Any], shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    values = np.empty(len(items), dtype=object)
    values[:] = items
    return values.reshape(shape)


@pytest.mark.parametrize("n_pieces", [1, 2, 5])
def test_strings_travel_in_any_number_of_pieces(n_pieces: int) -> None:
    values = make_objects(["naïve", b"\xff\x00x", "", "日本", "\udcff", "z" * 300], (3, 2))
    lengths, data = encode(values, "text")
    assert (lengths.dtype, lengths.shape, data.dtype) == (np.int64, (3, 2), np.uint8)
    found = decode(lengths, np.array_split(data, n_pieces), "text", np.dtype(object))
    wanted = [v if isinstance(v, bytes) else v.encode("utf-8", "surrogateescape") for v in values.reshape(-1)]
    assert found.shape == (3, 2)
    assert found.reshape(-1).tolist() == wanted


@pytest.mark.parametrize("dtype", ["<i4", ">f8", "S3"])
def test_lists_travel_and_may_be_written(dtype: str) -> None:
    items = [np.arange(n).astype(dtype) for n in (3, 0, 5)]
    lengths, data = encode(make_objects(items, (3,)), "lists")
    found = decode(lengths, [data], "lists", np.dtype(dtype))
    for item, wanted in zip(found, items, strict=True):
        np.testing.assert_array_equal(item, wanted)
        assert item.dtype == wanted.dtype
        assert item.flags.writeable


@pytest.mark.parametrize("shape", [(0,), (2, 0), (0, 3)])
def test_nothing_travels_as_nothing(shape: tuple[int, ...]) -> None:
    for kind in ("text", "lists"):
        lengths, data = encode(make_objects([], shape), kind)
        assert (lengths.shape, data.shape) == (shape, (0,))
        assert decode(lengths, [data], kind, np.dtype("f8")).shape == shape


@pytest.mark.parametrize(
    ("lengths", "n_bytes"),
    [([4, 4], 9), ([8, -8], 0), ([3, 5], 8), ([2**62, 2**62, 2**62, 2**62, 8], 8), ([], 8), ([8], 0)],
)
def test_lengths_that_are_none_are_the_servers_fault(lengths: list[int], n_bytes: int) -> None:
    with pytest.raises(InternalError, match=f"the server sent {n_bytes} bytes"):
        decode(np.array(lengths, np.int64), [np.zeros(n_bytes, np.uint8)], "lists", np.dtype("f8"))


# ---- values -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        "text",
        "",
        np.float64("nan"),
        np.int8(-3),
        np.bool_(True),
        np.complex64(1j),
        np.bytes_(b"abc"),
        np.bytes_(b""),
        np.arange(6.0).reshape(2, 3),
        np.zeros((0, 3), ">i4"),
        np.array([b"a", b"bcd"]),
        np.array((1, 2.5), COMPOUNDS[1])[()],
        np.zeros(2, COMPOUNDS[4]),
    ],
    ids=repr,
)
def test_an_attribute_travels(value: Any) -> None:
    found = read_value(travel(describe_value(value)))
    assert type(found) is type(value)
    if isinstance(value, np.ndarray):
        assert (found.dtype, found.shape) == (value.dtype, value.shape)
        assert found.flags.writeable
    np.testing.assert_array_equal(found, value)


def test_strings_of_an_attribute_are_objects_as_h5py_has_them() -> None:
    found = read_value(travel(describe_value(make_objects(["a", "é", ""], (3,)))))
    assert found.dtype == object
    assert found.tolist() == ["a", "é", ""]
    assert read_value(travel(describe_value(make_objects([], (0,))))).shape == (0,)


def test_what_cannot_travel_says_so() -> None:
    with pytest.raises(TypeError, match="cannot travel"):
        describe_value(make_objects([np.arange(3), b"x"], (2,)))
