"""HDF5 files for tests: a dataset of every kind, and what h5py says of each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np

from demos_hpc import Dataset, ModelSpec

PADDED = np.dtype([("a", "i1"), ("b", "f8"), ("c", "S3")], align=True)
#: Datasets that are read by fields.
COMPOUNDS = ("compound", "padded", "nested", "chunked_compound")


def write_everything(directory: Path) -> Path:
    """A file with a dataset of each kind that can be served; every name in it is one."""
    path = directory / "all.h5"
    rng = np.random.default_rng(3)
    with h5py.File(path, "w") as file:
        file["contiguous"] = rng.normal(size=(50, 7))
        file["line"] = np.arange(400, dtype="i4")
        file.create_dataset("chunked", data=rng.integers(0, 99, (60, 9)), chunks=(7, 4))
        options = {"compression": "gzip", "shuffle": True, "fletcher32": True}
        file.create_dataset("gzip", data=rng.integers(0, 99, (120, 11)), chunks=(13, 5), **options)
        file.create_dataset("cube", data=rng.normal(size=(9, 10, 11)), chunks=(4, 3, 5), compression="lzf")
        file["big_endian"] = rng.normal(size=(6, 7, 8)).astype(">f4")
        file["half"] = rng.normal(size=(5, 4)).astype("f2")
        file["long"] = rng.normal(size=5).astype("g")
        file["unsigned"] = np.array([0, 2**64 - 1, 5], "u8")
        file["bool"] = rng.random((4, 30)) < 0.5
        file["complex"] = rng.normal(size=(30, 2)) + 1j
        file["enum"] = np.array([1, 2, 1, 2], h5py.enum_dtype({"red": 1, "green": 2}, "i1"))
        file["opaque"] = np.array([b"ab", b"\0c"], "V2")
        file["times"] = np.arange(5).astype("M8[ns]").astype(h5py.opaque_dtype("M8[ns]"))
        file["fixed"] = np.array([[b"ab", b"", b"cde"], [b"x", b"yy", b"zzz"]])
        file["scalar"], file["scalar_text"], file["scalar_fixed"] = 3.5, "héllo", np.bytes_(b"abc")
        file["empty"] = h5py.Empty("f4")
        file["text"] = ["héllo", "b", "", "日本"] * 20
        file.create_dataset("texts", data=np.array([["a", "bb"], ["", "c" * 99]], object), dtype=h5py.string_dtype())
        bytes_ = h5py.string_dtype("ascii")
        file.create_dataset("text_chunked", data=[b"x" * n for n in range(50)], dtype=bytes_, chunks=(8,), shuffle=True)
        ragged = file.create_dataset("ragged", (20,), h5py.vlen_dtype("i4"), chunks=(6,))
        for nth in range(1, 20):
            ragged[nth] = np.arange(nth)
        file["no_rows"], file["no_columns"] = np.zeros((0, 3)), np.zeros((4, 0), "i2")
        file.create_dataset("no_text", (0,), h5py.string_dtype())
        grown = file.create_dataset("resizable", (10, 3), "f8", maxshape=(None, None), chunks=(4, 2), fillvalue=7.5)
        grown[2:5] = 1.0
        grown.resize((25, 5))
        file.create_dataset("never_written", (30, 2), "i4", fillvalue=-1)
        compound = np.array(
            [(i, i / 2, b"x%d" % i) for i in range(70)], [("a", "i4"), ("b", ">f8"), ("naïve name", "S5")]
        )
        file["compound"] = compound
        file.create_dataset("chunked_compound", data=compound.reshape(7, 10), chunks=(2, 3), compression="gzip")
        file["padded"] = np.array([(i, -i, b"p") for i in range(9)], PADDED)
        file["nested"] = np.array(
            [((i, [i, -i]), np.full((2, 2), i)) for i in range(12)],
            [("inner", [("x", "i2"), ("y", "f8", (2,))]), ("m", "f4", (2, 2))],
        )
        vectors = h5py.h5t.array_create(h5py.h5t.IEEE_F32LE, (3,))
        make = h5py.h5d.create(file.id, b"vectors", vectors, h5py.h5s.create_simple((8, 2)))
        h5py.Dataset(make)[...] = rng.normal(size=(8, 2, 3)).astype("f4")
        spaces = h5py.h5t.C_S1.copy()
        spaces.set_size(5)
        spaces.set_strpad(h5py.h5t.STR_SPACEPAD)
        h5py.Dataset(h5py.h5d.create(file.id, b"space_padded", spaces, h5py.h5s.create_simple((3,))))[...] = [
            b"a", b"bc", b"abcde",
        ]  # fmt: skip
        twelve = h5py.h5t.STD_I16LE.copy()
        twelve.set_precision(12)
        twelve.set_offset(4)
        h5py.Dataset(h5py.h5d.create(file.id, b"twelve_bits", twelve, h5py.h5s.create_simple((40,))))[...] = np.arange(
            -20, 20
        )
        compact = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        compact.set_layout(h5py.h5d.COMPACT)
        h5py.Dataset(
            h5py.h5d.create(file.id, b"compact", h5py.h5t.NATIVE_INT32, h5py.h5s.create_simple((6, 2)), compact)
        )[...] = np.arange(12).reshape(6, 2)
        file["wide"] = np.arange(3 * 5000.0).reshape(3, 5000)
        file.create_dataset("many", data=np.arange(6**5).reshape((6,) * 5), chunks=(2, 3, 4, 5, 6), compression="gzip")
        file["contiguous"].attrs.update(
            {"unit": "GeV", "n": np.float64("nan"), "v": np.arange(3.0), "names": ["é", ""], "b": np.bytes_(b"x"),
             "nothing": h5py.Empty("f8")}
        )  # fmt: skip
        file["contiguous"].attrs["reference"] = file["line"].ref
    return path


def list_names(path: Path) -> list[str]:
    with h5py.File(path) as file:
        return list(file)


def make_model(path: Path, names: list[str] | None = None, **options: Any) -> Any:
    """A model with nothing but the datasets of a file."""

    class Data:
        spec = ModelSpec(
            "data", datasets=tuple(Dataset(n, f"{path}:/{n}", **options) for n in names or list_names(path))
        )

    return Data()


def assert_same(found: Any, wanted: Any, *, is_type_checked: bool = True) -> None:
    """Values, dtype, shape and type, as h5py has them."""
    if is_type_checked:
        assert type(found) is type(wanted), (type(found), type(wanted))
    if isinstance(wanted, h5py.Empty):
        assert found == wanted
        return
    if not isinstance(wanted, np.ndarray):
        if isinstance(wanted, np.generic):
            assert found.dtype == wanted.dtype
        np.testing.assert_array_equal(found, wanted)
        return
    assert (found.shape, found.dtype) == (wanted.shape, wanted.dtype)
    assert found.flags.writeable
    assert found.flags.c_contiguous
    if wanted.dtype == object:
        for one, other in zip(found.reshape(-1), wanted.reshape(-1), strict=True):
            assert_same(one, other)
    else:
        np.testing.assert_array_equal(found, wanted)
