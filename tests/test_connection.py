"""A client's end of a link, told things that no server of ours would say."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demos_hpc.config import Config
from demos_hpc.connection import GRACE, Connection
from demos_hpc.errors import BadFrame, BadVersion, DeadlineExceeded, DemosError, InternalError, ServerLost, Status
from demos_hpc.future import Future
from demos_hpc.messages import Array, Failure, Flag, Kind, Operation, to_json
from demos_hpc.transport.loopback import LoopbackPort, make_pair
from demos_hpc.wire import DTYPES, HEADER_BYTES, INLINE_BYTES, OFFSETS, Frame, Packed, join, pack, read_header

CHECK = settings(derandomize=True, deadline=None, max_examples=200)
X = np.zeros((5, 1))
VALUES = np.arange(5.0)


class Desk:
    """A connection, and the server's end of its link."""

    def __init__(self, config: Config | None = None) -> None:
        self.inbox = LoopbackPort()
        #: What the server does while the client waits.
        self.turn: Callable[[], object] = lambda: None
        port = LoopbackPort(lambda: self.turn())
        self.link, here = make_pair(self.inbox, port, ("server", "client"))
        self.connection = Connection(port, here, config or Config(timeout=20.0))

    def start(self, n: int = 5, x: Array = X, **options: Any) -> Future:
        return self.connection.start(Operation.LOG_DENSITY, [x], n, n, ((),), lambda a: a[0], **options)

    def receive(self) -> list[Frame]:
        return [frame for _, frame in self.inbox.receive() if isinstance(frame, Frame)]

    def reply(self, id_: int, arrays: list[Any], *, final: bool = True, **fields: int) -> None:
        self.link.send(pack(Kind.REPLY, arrays, id=id_, flags=Flag.FINAL if final else 0, **fields))

    def assert_works(self) -> None:
        future = self.start()
        self.reply(future.id, [VALUES])
        np.testing.assert_array_equal(future.result(timeout=1.0), VALUES)


# ---- requests ------------------------------------------------------------------------------------------------


def test_a_request_says_all_that_there_is_to_say() -> None:
    desk = Desk()
    future = desk.start(model=3, flags=2, revision=7, seed=2**64 - 1, timeout=2.5)
    (frame,) = desk.receive()
    header = frame.header
    assert (header.kind, header.operation, header.model) == (Kind.REQUEST, Operation.LOG_DENSITY, 3)
    assert (header.id, header.flags, header.revision, header.seed) == (future.id, 2, 7, 2**64 - 1)
    assert 2500 <= header.deadline_ms <= 2501
    np.testing.assert_array_equal(frame.arrays[0], X)


@pytest.mark.parametrize(("timeout", "most"), [(None, 20_001), (0, 1), (1e9, 2**32 - 1), (float("inf"), 2**32 - 1)])
def test_deadlines_on_the_wire(timeout: float | None, most: int) -> None:
    desk = Desk()
    desk.start(timeout=timeout)
    (frame,) = desk.receive()
    assert max(1, most - 1) <= frame.header.deadline_ms <= most


def test_questions_have_a_deadline_too() -> None:
    """Some are for workers, who may be busy for days after everybody has ceased to wait."""
    desk = Desk()
    desk.connection.ask(Operation.DESCRIBE, {}, model=3)
    (frame,) = desk.receive()
    assert 20_000 <= frame.header.deadline_ms <= 20_001
    assert (frame.header.model, frame.header.n_rows) == (3, 1)


def test_ids_are_never_used_twice() -> None:
    desk = Desk()
    futures = [desk.start() for _ in range(5)] + [desk.connection.ask(Operation.METADATA, {})]
    assert len({future.id for future in futures} - {0}) == 6


def test_a_large_request_travels_in_parts() -> None:
    desk = Desk(Config(window_bytes=100 * 8))
    x = np.arange(1000.0)[:, np.newaxis]
    future = desk.start(1000, x, part_rows=64, n_per_row=1)
    assert not future.done()
    frames = desk.receive()
    assert frames[0].header.kind == Kind.REQUEST
    assert frames[0].header.n_rows == 1000
    assert len(frames) == 2
    rows = 0
    while rows < 1000:
        for frame in frames:
            assert frame.header.id == future.id
            assert frame.header.kind == Kind.REQUEST or frame.header.first_row == rows
            np.testing.assert_array_equal(frame.arrays[0], x[rows : rows + 64])
            rows += len(frame.arrays[0])
        desk.reply(future.id, [x[rows - 64 * len(frames) : rows, 0][:0]], final=False)
        done = np.zeros(min(rows, 1000) - future.n_answered)
        desk.reply(future.id, [done], final=rows >= 1000, first_row=future.n_answered)
        future.done()
        frames = desk.receive()
    assert future.done()


def test_rows_past_two_to_the_31_are_cut_and_put_in_their_place() -> None:
    """Rows without columns take no memory, and rows that all lie in one place take little."""
    desk, n, part = Desk(), 2**33 + 5, 2**31
    out = np.lib.stride_tricks.as_strided(np.zeros(1), (n,), (0,), writeable=True)
    future = desk.start(n, np.empty((n, 0)), part_rows=part, n_per_row=1, out=[out])
    assert not future.done()
    frames = [frame.header for frame in desk.receive()]
    assert [header.kind for header in frames] == [Kind.REQUEST, *[Kind.ROWS] * 4]
    assert frames[0].n_rows == n
    assert [(header.first_row, header.n_rows) for header in frames[1:]] == [
        (part, part), (2 * part, part), (3 * part, part), (4 * part, 5),
    ]  # fmt: skip
    desk.reply(future.id, [np.array([3.0, 4.0])], final=False, first_row=n - 2)
    assert not future.done()
    assert (future.n_answered, out[0]) == (2, 4.0)
    large = pack(Kind.REPLY, [np.zeros(INLINE_BYTES)], id=future.id, first_row=2**32)
    frame = Frame(read_header(large.head), large.head)
    (place,) = desk.connection._place(desk.link, frame.header, frame.layout)  # received in place
    assert np.shares_memory(place, out)
    assert place.shape == (INLINE_BYTES,)
    desk.reply(future.id, [VALUES], first_row=n - 4)
    with pytest.raises(InternalError, match=rf"rows {n - 4} of \(\(5,\),\) instead of {n}"):
        future.result()


# ---- answers -------------------------------------------------------------------------------------------------


def test_answers_come_in_any_order_and_in_parts() -> None:
    desk = Desk()
    first, second = desk.start(), desk.start()
    desk.reply(first.id, [VALUES[3:]], final=False, first_row=3, deadline_ms=1)
    desk.reply(second.id, [VALUES * 2], revision=4)
    desk.reply(first.id, [VALUES[:3]], first_row=0, revision=9, deadline_ms=2)
    np.testing.assert_array_equal(first.result(), VALUES)
    np.testing.assert_array_equal(second.result(), VALUES * 2)
    assert (first.revision, first.nonfinite_rows, second.revision, second.nonfinite_rows) == (9, 3, 4, 0)


def test_several_answers_in_one_message() -> None:
    desk = Desk()
    futures = [desk.start() for _ in range(3)]
    replies = [pack(Kind.REPLY, [VALUES + f.id], id=f.id, flags=Flag.FINAL).head for f in futures]
    desk.link.send(Packed(join(replies), ()))
    assert [future.result()[0] for future in futures] == [future.id for future in futures]


def test_large_answers_land_in_the_callers_array() -> None:
    n = INLINE_BYTES
    desk, out = Desk(), np.zeros(n)
    future = desk.start(n, np.zeros((n, 1)), out=[out])
    values = np.arange(float(n))
    desk.reply(future.id, [values[: n // 2]], final=False)
    desk.reply(future.id, [values[n // 2 :]], first_row=n // 2)
    assert future.result() is out
    np.testing.assert_array_equal(out, values)


def test_a_failure_is_raised_with_its_reason() -> None:
    desk = Desk()
    future = desk.start()
    failure = Failure(int(Status.MODEL_FAILED), "it is too cold", "the traceback there")
    desk.reply(future.id, [to_json(failure.to_dict())], status=Status.MODEL_FAILED)
    error = future.exception()
    assert "it is too cold" in str(error)
    assert "the traceback there" in str(error.__cause__)  # type: ignore[union-attr]
    desk.assert_works()


BAD_REPLIES: dict[str, dict[str, Any]] = {
    "no array": {"arrays": []},
    "two arrays": {"arrays": [VALUES, VALUES]},
    "too many rows": {"arrays": [np.zeros(6)]},
    "rows beyond the last": {"arrays": [VALUES], "first_row": 1},
    "rows far beyond": {"arrays": [VALUES], "first_row": 2**64 - 1},
    "rows of another width": {"arrays": [VALUES[:, np.newaxis]]},
    "a number": {"arrays": [np.array(1.0)]},
    "another dtype": {"arrays": [np.arange(5)]},
    "final too early": {"arrays": [VALUES[:3]]},
    "final twice over": {"arrays": [np.zeros(0)]},
    "large and of another dtype": {"arrays": [np.zeros(INLINE_BYTES, np.float32)]},
    "large and too long": {"arrays": [np.zeros(INLINE_BYTES)]},
    "a failure without a reason": {"arrays": [], "status": 3},
    "a failure whose reason is a number": {"arrays": [VALUES], "status": 3},
    "a failure whose reason is a list": {"arrays": [to_json([])], "status": 3},
    "an unknown status": {"arrays": [to_json({"status": 99, "message": "new"})], "status": 99},
}


@pytest.mark.parametrize("name", BAD_REPLIES)
def test_an_answer_that_is_none_is_an_error_of_the_server(name: str) -> None:
    desk = Desk()
    future, other = desk.start(), desk.start()
    desk.reply(future.id, **BAD_REPLIES[name])
    desk.reply(other.id, [VALUES])
    with pytest.raises(InternalError, match=r"the server|new"):
        future.result(timeout=1.0)
    np.testing.assert_array_equal(other.result(timeout=1.0), VALUES)
    desk.assert_works()


def test_an_answer_whose_layout_contradicts_its_header_harms_no_other() -> None:
    desk = Desk()
    futures = [desk.start() for _ in range(3)]
    bad = pack(Kind.REPLY, [VALUES], id=futures[1].id, flags=Flag.FINAL)
    bad.head[HEADER_BYTES + 8] -= 1
    desk.reply(futures[0].id, [VALUES])
    desk.link.send(bad)
    desk.reply(futures[2].id, [VALUES])
    for future in (futures[2], futures[0]):
        np.testing.assert_array_equal(future.result(timeout=1.0), VALUES)
    with pytest.raises((BadFrame, InternalError), match="a frame whose header announces"):
        futures[1].result(timeout=1.0)
    desk.assert_works()


def test_an_answer_to_a_question_that_is_no_json() -> None:
    desk = Desk()
    question, other = desk.connection.ask(Operation.METADATA, {}), desk.start()
    desk.reply(question.id, [np.arange(7, dtype=np.uint8)])
    desk.reply(other.id, [VALUES])
    np.testing.assert_array_equal(other.result(timeout=1.0), VALUES)
    with pytest.raises(BadFrame, match="should be JSON"):
        question.result()
    with pytest.raises(BadFrame):
        question.result()
    desk.assert_works()


def test_answers_that_nobody_waits_for_are_dropped() -> None:
    desk = Desk()
    future = desk.start()
    for id_ in (0, 77, 2**63):
        desk.reply(id_, [VALUES])
        desk.reply(id_, [np.zeros(INLINE_BYTES)])
    for kind in (Kind.REQUEST, Kind.RESULT, Kind.CHUNK, 99):
        desk.link.send(pack(kind, [VALUES * np.nan], id=future.id))
    desk.reply(future.id, [VALUES])
    desk.reply(future.id, [VALUES * 2])
    np.testing.assert_array_equal(future.result(), VALUES)
    desk.assert_works()


# ---- the end -------------------------------------------------------------------------------------------------

ENDS: dict[str, tuple[Packed, type[DemosError], str]] = {
    "end": (pack(Kind.END), ServerLost, "the server has ended"),
    "complaint": (
        pack(
            Kind.REPLY,
            [to_json(Failure(int(Status.BAD_VERSION), "the peer speaks wire version 2.0").to_dict())],
            status=Status.BAD_VERSION,
        ),
        BadVersion,
        "the peer speaks wire version 2.0",
    ),
    "no frame": (Packed(bytearray(64), ()), BadFrame, "a frame that starts with"),
    "cut off": (Packed(pack(Kind.REPLY, [VALUES], id=1).head[:-1], ()), BadFrame, "a frame of .* bytes of which"),
}


@pytest.mark.parametrize("name", ENDS)
def test_the_end_is_told_to_whoever_waits_and_to_whoever_calls(name: str) -> None:
    message, error, text = ENDS[name]
    desk = Desk()
    futures = [desk.start() for _ in range(3)]
    desk.reply(futures[0].id, [VALUES])
    desk.link.send(message)
    np.testing.assert_array_equal(futures[0].result(), VALUES)
    for call in (futures[1].result, futures[2].result, desk.start, lambda: desk.connection.ask(Operation.METADATA, {})):
        with pytest.raises(error, match=text):
            call()
    assert futures[1].cancel() is False


def test_a_request_in_parts_ends_with_the_server() -> None:
    desk = Desk(Config(window_bytes=8))
    future = desk.start(1000, np.zeros((1000, 1)), part_rows=10, n_per_row=1)
    desk.link.send(pack(Kind.END))
    with pytest.raises(ServerLost):
        future.result()
    desk.receive()
    assert future.done()
    assert desk.receive() == []


def test_goodbye_is_said_once() -> None:
    desk = Desk()
    desk.connection.say_goodbye()
    desk.connection.say_goodbye()
    assert [frame.header.kind for frame in desk.receive()] == [Kind.GOODBYE]


def test_a_server_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("demos_hpc.connection.GRACE", 0.0)
    desk = Desk()
    future, other = desk.start(timeout=0.01), desk.start()
    start = time.monotonic()
    with pytest.raises(DeadlineExceeded, match="0 of 5 rows answered>: neither an answer in time nor a refusal"):
        future.result()
    assert time.monotonic() - start < 5
    desk.reply(future.id, [VALUES])  # too late
    desk.reply(other.id, [VALUES])
    np.testing.assert_array_equal(other.result(), VALUES)


def test_a_question_is_given_up_at_its_deadline_and_no_later() -> None:
    """The server knows none of questions, so there is no word of it to wait for."""
    desk = Desk(Config(timeout=0.05))
    start = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        desk.connection.ask(Operation.METADATA, {}).result()
    assert 0.05 <= time.monotonic() - start < GRACE


def test_why_it_is_over_is_what_was_said_first() -> None:
    desk = Desk()
    future = desk.start()
    desk.link.send(pack(Kind.END))
    desk.connection._port._arrived.append((desk.connection._link, ServerLost("closed")))  # type: ignore[attr-defined]
    for _ in range(2):
        with pytest.raises(ServerLost, match="the server has ended"):
            future.result()
        with pytest.raises(ServerLost, match="the server has ended"):
            desk.start()


def test_a_fork_does_not_say_goodbye(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk()
    future = desk.start()
    monkeypatch.setattr("demos_hpc.connection.os.getpid", lambda: -1)
    assert not desk.connection.is_ours
    for do in (desk.start, future.result, future.cancel):
        with pytest.raises(RuntimeError, match="not to its forks"):
            do()
    monkeypatch.undo()
    assert desk.connection.is_ours
    desk.reply(future.id, [VALUES])
    assert future.result().tolist() == VALUES.tolist()


# ---- anything at all -----------------------------------------------------------------------------------------

arrays = st.lists(
    st.builds(
        lambda dtype, shape: np.ones(shape, dtype),
        st.sampled_from([DTYPES[1], *DTYPES.values()]),
        st.one_of(st.just((5,)), st.lists(st.integers(0, 6), max_size=3)),
    ),
    max_size=2,
)
replies = st.builds(
    pack,
    st.sampled_from([Kind.REPLY] * 6 + [k for k in Kind if k is not Kind.END]),
    st.one_of(arrays, st.just([to_json({"status": 3, "message": ""})])),
    id=st.integers(0, 3),
    status=st.sampled_from([0, 0, 0, 3, 99]),
    flags=st.integers(0, 3),
    first_row=st.one_of(st.integers(0, 6), st.integers(0, 2**64 - 1)),
    n_rows=st.integers(0, 2**64 - 1),
    deadline_ms=st.integers(0, 2**32 - 1),
)


@st.composite
def damaged(draw: st.DrawFn) -> Packed:
    head = bytearray(draw(replies).head)
    for _ in range(draw(st.integers(0, 2))):
        head[draw(st.integers(0, len(head) - 1))] = draw(st.integers(0, 255))
    return Packed(head[: draw(st.one_of(st.just(len(head)), st.integers(0, len(head))))], ())


@CHECK
@given(st.lists(st.one_of(replies, damaged()), min_size=1, max_size=6))
def test_whatever_a_server_says_each_future_ends_with_an_answer_or_an_error(messages: list[Packed]) -> None:
    desk = Desk()
    futures = [desk.start(), desk.connection.ask(Operation.METADATA, {}), desk.start()]
    for message in messages:
        desk.link.send(message)
    futures[0].done()
    desk.reply(futures[0].id, [VALUES])
    desk.reply(futures[1].id, [to_json({})])
    desk.reply(futures[2].id, [VALUES])
    for future in futures:
        error = future.exception(timeout=1.0)
        assert error is None or isinstance(error, DemosError)
    lost = desk.connection._lost
    if lost is None:
        desk.assert_works()
    else:
        assert isinstance(lost, DemosError)


@CHECK
@given(st.integers(0, OFFSETS["seed"] + 7), st.integers(0, 255))
def test_one_byte_of_a_header_changed(at: int, byte: int) -> None:
    desk = Desk()
    future = desk.start()
    message = pack(Kind.REPLY, [VALUES], id=future.id, flags=Flag.FINAL)
    message.head[at] = byte
    desk.link.send(message)
    future.done()
    desk.reply(future.id, [VALUES])
    try:
        got = future.result(timeout=1.0)
    except DemosError:
        return
    np.testing.assert_array_equal(got, VALUES)
