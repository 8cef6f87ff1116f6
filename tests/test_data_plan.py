"""Requests for data as a dispatcher takes them, and what a client may say instead: refused, and nobody is hurt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from datafiles import make_model
from service import Peer, Service, make_request, read_error

from demos_hpc import Config
from demos_hpc.data_plan import MOST_QUESTION, make_data_plan
from demos_hpc.errors import BadFrame, DatasetError, DemosError, InvalidInput, NotOffered, TooLarge
from demos_hpc.messages import Flag, Operation, from_json, to_json
from demos_hpc.selection import MOST_UNIT_BYTES
from demos_hpc.testing import Gaussian
from demos_hpc.wire import Frame, Packed, pack, read_header

N, D = 1000, 4
X = np.arange(N * D, dtype=float).reshape(N, D)
MANY = 1 << 40
NAMES = ["x", "packed", "text", "compound", "scalar", "vast", "vast_text"]


class House:
    """A service of one file, and a client that says what it likes."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "data.h5"
        with h5py.File(self.path, "w") as file:
            file["x"] = X
            file.create_dataset("packed", data=X, chunks=(100, 3), compression="gzip")
            file["text"] = ["a", "bb", "ccc"]
            file["compound"] = np.array([(1, 2.0)] * 5, [("a", "i4"), ("b", "f8")])
            file["scalar"] = 5.0
            # Not on the disk, but one could be asked for all of it.
            file.create_dataset("vast", (MANY, 100), "f8", chunks=(1 << 17, 10), compression="gzip")
            file.create_dataset("vast_text", (MANY,), h5py.string_dtype(), chunks=(1 << 10,))
        self.service = Service(make_model(self.path, NAMES), workers=2, config=Config(timeout=10.0))
        self.peer: Peer = self.service.add_peer()
        self.identity = self.describe("x")["identity"]

    def describe(self, name: str | None) -> Any:
        frame = self.peer.ask_one(make_request(Operation.DESCRIBE, [to_json({"dataset": name})], n_rows=1))
        assert not frame.header.status, read_error(frame)
        found = from_json(frame.arrays[0])["datasets"]
        return found if name is None else found[0]

    def question(self, **words: Any) -> dict[str, Any]:
        """Of all rows of x."""
        whole = {"axes": [[0, 1, N], [0, 1, D]], "axis": 0, "fields": None, "is_flat": False}
        return {"dataset": "x", "identity": self.identity, "kind": "rows", "row_bytes": 8 * D, **whole, **words}

    def ask(self, *arrays: Any, operation: Operation = Operation.DATASET, n_rows: int | None = None) -> Frame:
        """One frame of the answer; the first array is JSON where it is none."""
        sent = [to_json(arrays[0]) if isinstance(arrays[0], dict | list) else arrays[0], *arrays[1:]]
        if n_rows is None:
            n_rows = int(arrays[1][-1]) if len(arrays) > 1 else 1
        return self.peer.ask_one(make_request(operation, sent, n_rows=n_rows))

    def refuse(self, *arrays: Any, **options: Any) -> DemosError:
        """The error that is the answer; afterwards all is as it was."""
        error = read_error(self.ask(*arrays, **options))
        self.check()
        return error

    def check(self) -> None:
        """Both workers are there, and a good question is answered."""
        assert self.service.dispatcher.scheduler.is_idle
        assert sum(peer.role == "worker" for peer in self.service.dispatcher.peers.values()) == 2
        frame = self.ask(self.question(), np.array([0, N]))
        assert not frame.header.status, read_error(frame)
        np.testing.assert_array_equal(frame.arrays[0].view(np.float64), X)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> House:
    return House(tmp_path_factory.mktemp("data"))


# ---- what is asked ------------------------------------------------------------------------------------------


def test_units_are_answered_one_by_one(house: House) -> None:
    bounds = np.array([0, 10, 500, N])
    frames = house.peer.ask(make_request(Operation.DATASET, [to_json(house.question()), bounds], n_rows=N), 3)
    assert sum(bool(frame.header.flags & Flag.FINAL) for frame in frames) == 1
    rows = np.full((N, D), np.nan)
    for frame in frames:
        first, count = frame.header.first_row, frame.header.n_rows
        assert first in bounds
        assert frame.arrays[0].shape == (count, 8 * D)
        rows[first : first + count] = frame.arrays[0].view(np.float64)
    np.testing.assert_array_equal(rows, X)


def test_lists_go_with_their_rows_or_with_the_question(house: House) -> None:
    indices = np.array([3, 7, 999])
    apart = house.question(axes=[None, [1, 1, 2]], row_bytes=16)
    np.testing.assert_array_equal(
        house.ask(apart, np.array([0, 3]), indices).arrays[0].view(np.float64), X[indices, 1:3]
    )
    within = house.question(axes=[{"indices": indices.tolist()}, [1, 1, 2]], axis=1, row_bytes=24)
    np.testing.assert_array_equal(house.ask(within, np.array([0, 2])).arrays[0].view(np.float64), X[indices, 1:3].T)


def test_strings_come_as_lengths_and_bytes(house: House) -> None:
    question = house.question(dataset="text", kind="text", axes=[[0, 1, 3]])
    lengths, data = house.ask(question, np.array([0, 3])).arrays
    assert lengths.tolist() == [1, 2, 3]
    assert data.tobytes() == b"abbccc"


def test_digests_are_32_bytes_each(house: House) -> None:
    question = {"dataset": "x", "identity": house.identity}
    frame = house.ask(question, np.array([0, 1]), operation=Operation.DIGEST)
    assert frame.arrays[0].shape == (1, 32)


def test_all_datasets_are_described_or_one(house: House) -> None:
    assert [described["name"] for described in house.describe(None)] == NAMES
    frame = house.ask({}, operation=Operation.DESCRIBE)
    assert len(from_json(frame.arrays[0])["datasets"]) == len(NAMES)


def test_a_model_without_datasets_does_not_offer_them() -> None:
    peer = Service(Gaussian()).add_peer()
    for operation in (Operation.DATASET, Operation.DESCRIBE, Operation.DIGEST):
        arrays = [to_json({"dataset": "x"}), np.array([0, 1])]
        error = read_error(peer.ask_one(make_request(operation, arrays, n_rows=1)))
        assert isinstance(error, NotOffered)


# ---- what is no request -------------------------------------------------------------------------------------

B, I = np.array([0, N]), np.arange(N)  # noqa: E741
LIES: list[tuple[type[DemosError], str, dict[str, Any], list[Any]]] = [
    # bounds
    (InvalidInput, "without the first row of each unit", {}, []),
    (InvalidInput, "without the first row of each unit", {}, [np.array([0.0, N])]),
    (InvalidInput, "without the first row of each unit", {}, [np.array([[0, N]])]),
    (InvalidInput, "do not increase from 0", {}, [np.array([0])]),
    (InvalidInput, "do not increase from 0", {}, [np.zeros(0, np.int64)]),
    (InvalidInput, "do not increase from 0", {}, [np.array([1, N])]),
    (InvalidInput, "do not increase from 0", {}, [np.array([0, 5, 5, N])]),
    (InvalidInput, "do not increase from 0", {}, [np.array([0, 7, 5, N])]),
    (InvalidInput, "do not increase from 0", {}, [np.array([0, -5, N])]),
    # differences of these overflow, and are positive
    (InvalidInput, "do not increase from 0", {}, [np.array([0, 2**62, 2**63 - 1, -(2**63), -(2**62), -1, N])]),
    (InvalidInput, "of 1000 rows, cut into 999", {}, [np.array([0, N - 1])]),
    # lists
    (InvalidInput, r"with int64 \(1000,\), int64 \(1000,\) for 1000 rows", {}, [B, I, I]),
    (InvalidInput, r"with int64 \(999,\) for 1000 rows", {"axes": [None, [0, 1, D]]}, [B, I[:-1]]),
    (InvalidInput, r"with float64 \(1000,\) for 1000 rows", {"axes": [None, [0, 1, D]]}, [B, I.astype(float)]),
    (InvalidInput, r"with int64 \(1000, 1\) for 1000 rows", {"axes": [None, [0, 1, D]]}, [B, I[:, np.newaxis]]),
    (BadFrame, "with 1 lists, for axes", {}, [B, I]),
    (BadFrame, "with 0 lists, for axes", {"axes": [None, [0, 1, D]]}, [B]),
    (BadFrame, "does not increase", {"axes": [None, [0, 1, D]]}, [B, I[::-1].copy()]),
    (BadFrame, "does not increase", {"axes": [None, [0, 1, D]]}, [B, np.zeros(N, np.int64)]),
    (BadFrame, "a list of", {"axes": [None, [0, 1, D]]}, [B, I - 1]),
    (InvalidInput, "index 1000 is out of range", {"axes": [None, [0, 1, D]]}, [B, I + 1]),
    # spans
    (BadFrame, "is none", {"axes": [[0, 1, N], [0, 1, -1]]}, [B]),
    (BadFrame, "is none", {"axes": [[0, -1, N], [0, 1, D]]}, [B]),
    (BadFrame, "is none", {"axes": [[-1, 1, N], [0, 1, D]]}, [B]),
    (BadFrame, "rows 0 to 1000 of 10", {"axes": [[0, 1, 10], [0, 1, D]]}, [B]),
    (InvalidInput, "index 1000 is out of range", {"axes": [[1, 1, N], [0, 1, D]]}, [B]),
    (InvalidInput, "axis 1: index 4 is out of range", {"axes": [[0, 1, N], [0, 2, 3]]}, [B]),
    (InvalidInput, "out of range", {"axes": [[0, 2**62, N], [0, 1, D]]}, [B]),
    (InvalidInput, "out of range", {"axes": [[0, 1, N], [2**63 - 1, 1, 1]]}, [B]),
    (InvalidInput, "1 axes of a dataset of shape", {"axes": [[0, 1, N]]}, [B]),
    (InvalidInput, "3 axes of a dataset of shape", {"axes": [[0, 1, N], [0, 1, D], [0, 1, 1]]}, [B]),
    (BadFrame, "of a scalar", {"axes": [], "dataset": "scalar"}, [B]),
    (InvalidInput, "0 axes of a dataset of shape", {"axes": []}, [np.array([0, 1])]),
    (InvalidInput, "out of range", {"axes": [None], "is_flat": True, "row_bytes": 8}, [B, I + N * D]),
    (BadFrame, "is none", {"axes": 5}, [B]),
    (BadFrame, "is none", {"axis": 2}, [B]),
    # sizes
    (InvalidInput, "with rows of None bytes", {"row_bytes": None}, [B]),
    (InvalidInput, "with rows of 0 bytes", {"row_bytes": 0}, [B]),
    (InvalidInput, "with rows of -8 bytes", {"row_bytes": -8}, [B]),
    (InvalidInput, "with rows of True bytes", {"row_bytes": True}, [B]),
    (InvalidInput, "with rows of 32.0 bytes", {"row_bytes": 32.0}, [B]),
    (InvalidInput, "have 32000 bytes, not 1000 times 8", {"row_bytes": 8}, [B]),
    (InvalidInput, "have 32000 bytes, not 1000 times 33", {"row_bytes": 33}, [B]),
    # kinds
    (InvalidInput, "of kind 'other'", {"kind": "other"}, [B]),
    (InvalidInput, "of kind 'None'", {"kind": None}, [B]),
    (InvalidInput, r"of kind '\[\]'", {"kind": []}, [B]),
    (BadFrame, "a question for 'text' of .*, which has rows", {"kind": "text"}, [B]),
    (BadFrame, "a question for 'lists' of .*, which has text",
     {"dataset": "text", "kind": "lists", "axes": [[0, 1, 3]]}, [np.array([0, 3])]),
    (BadFrame, "a question for 'rows' of .*, which has text",
     {"dataset": "text", "axes": [[0, 1, 3]]}, [np.array([0, 3])]),
    # fields
    (InvalidInput, "has no fields, such as 'a'", {"fields": ["a"]}, [B]),
    (InvalidInput, "no field 'c'; there are a, b",
     {"dataset": "compound", "fields": ["c"], "axes": [[0, 1, 5]], "row_bytes": 4}, [np.array([0, 5])]),
    (BadFrame, "not all different",
     {"dataset": "compound", "fields": ["a", "a"], "axes": [[0, 1, 5]], "row_bytes": 8}, [np.array([0, 5])]),
    (BadFrame, "fields are a list of names", {"dataset": "compound", "fields": []}, [np.array([0, 5])]),
    # which file
    (DatasetError, "was replaced or changed since dataset 'x' was opened", {"identity": "0" * 16}, [B]),
    (DatasetError, "was replaced or changed since dataset 'x' was opened", {"identity": None}, [B]),
    (DatasetError, "was replaced or changed since dataset 'x' was opened", {"identity": ["a"]}, [B]),
    *[(InvalidInput, "has no dataset", {"dataset": name}, [B])
      for name in ("", "y", "/x", "x/", "../data.h5:/x", "/etc/passwd", "x\0", None, 5, [], {}, True, "x" * 10_000)],
    # what nobody has the memory for
    (TooLarge, f"{MOST_UNIT_BYTES} of one unit", {"row_bytes": 2**62}, [B]),
    (TooLarge, f"{MOST_UNIT_BYTES} of one unit",
     {"dataset": "vast", "axes": [[0, 1, MANY], [0, 1, 100]], "row_bytes": 800}, [np.array([0, MANY])]),
    (TooLarge, f"{MOST_UNIT_BYTES} of one unit", {"kind": "text"}, [np.array([0, MANY])]),
    (InvalidInput, "have 8796093022208 bytes, not 1 times 8",
     {"dataset": "vast", "axes": [[0, 1, MANY], [0, 1, 100]], "row_bytes": 8, "axis": 1}, [np.array([0, 1])]),
    (TooLarge, "for which .* bytes are read; a worker reads",
     {"dataset": "vast", "axes": [[0, 1 << 17, 1 << 20], [0, 1, 1]], "row_bytes": 8}, [np.array([0, 1 << 20])]),
]  # fmt: skip


@pytest.mark.parametrize(("error", "message", "words", "arrays"), LIES, ids=range(len(LIES)))
def test_what_is_no_request_is_refused_and_nothing_happens(
    house: House, error: type[DemosError], message: str, words: dict[str, Any], arrays: list[Any]
) -> None:
    n_rows = int(arrays[0].reshape(-1)[-1]) if arrays and arrays[0].size else 1
    n_rows = N if message.startswith("of 1000 rows") else n_rows
    with pytest.raises(error, match=message):
        raise house.refuse(house.question(**words), *arrays, n_rows=n_rows)


@pytest.mark.parametrize(
    ("error", "message", "asked"),
    [
        (BadFrame, "should be JSON are not", np.frombuffer(b"{", np.uint8)),
        (BadFrame, "is a JSON object, not list", []),
        (InvalidInput, "is a question in JSON", np.zeros(3)),
        (InvalidInput, "is a question in JSON", np.zeros((1, 3), np.uint8)),
        (InvalidInput, "of at most", np.full(MOST_QUESTION + 1, 32, np.uint8)),
        (BadFrame, "should be JSON are not", np.frombuffer(b"[" * 100_000, np.uint8)),
    ],
)
@pytest.mark.parametrize("operation", [Operation.DATASET, Operation.DIGEST, Operation.DESCRIBE])
def test_a_question_that_is_none(
    house: House, operation: Operation, error: type[DemosError], message: str, asked: Any
) -> None:
    arrays = [asked] if operation is Operation.DESCRIBE else [asked, B]
    with pytest.raises(error, match=message):
        raise house.refuse(*arrays, operation=operation)


def test_no_arrays_at_all(house: House) -> None:
    for operation in (Operation.DATASET, Operation.DIGEST, Operation.DESCRIBE):
        frame = house.peer.ask_one(make_request(operation, [], n_rows=1))
        assert isinstance(read_error(frame), InvalidInput)


@pytest.mark.parametrize(
    ("words", "arrays"),
    [
        ({"kind": "text"}, [np.array([0, 1])]),  # does not matter
        ({"row_bytes": 64}, [np.array([0, 1])]),
    ],
)
def test_digests_are_32_bytes_whatever_is_said(house: House, words: dict[str, Any], arrays: list[Any]) -> None:
    frame = house.ask(house.question(**words), *arrays, operation=Operation.DIGEST)
    assert frame.arrays[0].shape == (1, 32)
    house.check()


@pytest.mark.parametrize(
    ("error", "message", "words", "bounds"),
    [
        (InvalidInput, "checksums 0 to 2 of .*, which has 1", {}, [0, 2]),
        (InvalidInput, "checksums 0 to 4194304 of", {}, [0, 1 << 22]),
        (TooLarge, f"{MOST_UNIT_BYTES} of one unit", {}, [0, MANY]),
        (TooLarge, "in one unit: ask for fewer", {"dataset": "vast"}, [0, 1000]),
        (DatasetError, "was replaced or changed", {"identity": "f" * 16}, [0, 1]),
        (InvalidInput, "has no dataset", {"dataset": "../x"}, [0, 1]),
    ],
)
def test_digests_that_are_none(
    house: House, error: type[DemosError], message: str, words: dict[str, Any], bounds: list[int]
) -> None:
    with pytest.raises(error, match=message):
        raise house.refuse(house.question(**words), np.array(bounds), operation=Operation.DIGEST)


@pytest.mark.parametrize(
    ("arrays", "n_rows"), [([np.zeros(1)], 1), ([np.array([0, 1])], 1), ([], 2), ([], 0), ([], 2**63), ([], 2**64 - 1)]
)
def test_descriptions_that_are_none(house: House, arrays: list[Any], n_rows: int) -> None:
    error = house.refuse({"dataset": "x"}, *arrays, operation=Operation.DESCRIBE, n_rows=n_rows)
    assert isinstance(error, InvalidInput)


def test_rows_that_follow_are_refused(house: House) -> None:
    """A request for data is one frame; what comes later belongs to nothing."""
    header = {"operation": Operation.DATASET, "model": 1, "id": 1, "n_rows": N}
    question = to_json(house.question())
    house.peer.send(pack(1, [question, B], **header))
    frames = house.peer.ask(pack(2, [np.zeros((10, D))], **{**header, "n_rows": 10}))
    house.service.turn()
    frames += house.peer.receive()
    assert [frame.header.id for frame in frames if frame.header.flags & Flag.FINAL] == [1]
    house.check()


# ---- plans by themselves ------------------------------------------------------------------------------------


def to_frame(packed: Packed) -> Frame:
    return Frame(read_header(packed.head), packed.head, arrays=list(packed.tail) or None)


def test_work_is_counted_by_dataset_and_no_name_of_a_clients_own(house: House) -> None:
    spec = make_model(house.path).spec.with_operations(["dataset"])

    def plan(operation: Operation, question: Any, *arrays: Any) -> Any:
        packed = make_request(operation, [to_json(question), *arrays], n_rows=int(arrays[0][-1]) if arrays else 1)
        return make_data_plan(spec, to_frame(packed), 1 << 30)

    one = plan(Operation.DATASET, house.question(), np.array([0, 500, N]))
    assert (one.units, one.rows, one.limit, one.merge_key(1)) == (2, N, 1, None)
    assert one.work == (Operation.DATASET, "x")
    assert plan(Operation.DESCRIBE, {"dataset": "x"}).work == plan(Operation.DESCRIBE, {}).work
    first, count, arrays = one.select(1, 1)
    assert (first, count, len(arrays)) == (500, 500, 1)
    assert json.loads(arrays[0].tobytes())["dataset"] == "x"


def test_a_server_says_how_much_it_takes_and_sends(house: House) -> None:
    spec = make_model(house.path).spec.with_operations(["dataset"])
    packed = make_request(Operation.DATASET, [to_json(house.question()), B], n_rows=N)
    make_data_plan(spec, to_frame(packed), 32 * N)
    with pytest.raises(TooLarge, match="this server sends 31999 bytes"):
        make_data_plan(spec, to_frame(packed), 32 * N - 1)
    with pytest.raises(TooLarge, match="this server takes 100"):
        make_data_plan(spec, to_frame(packed), 100)
