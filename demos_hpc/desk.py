"""Where other threads bring their questions to the thread that owns the connections.

A link belongs to one thread, and samplers bring loops and threads of their own. So their functions are run in
threads that stop wherever they ask a model something, and the owning thread answers them, many at a time.
"""

from __future__ import annotations

import contextvars
import io
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import partial
from queue import SimpleQueue
from typing import Any

import numpy as np

from .messages import FloatArray

#: What is asked: points (m, k) to arrays of m rows each.
Ask = Callable[[FloatArray], tuple[FloatArray, ...]]
#: Most threads at a time; containers often allow no more than a few hundred processes and threads.
MOST_THREADS = 128

#: The open desk of each thread that has one. A sampler's thread has no other way to find it.
_desks: dict[int, Desk] = {}


class Stopped(BaseException):
    """Ends a thread whose question will not be answered any more. No Exception, lest a sampler carry on."""


class Question:
    """Something that a thread waits for."""

    __slots__ = ("_is_settled", "answer", "ask", "error", "points")

    def __init__(self, ask: Ask, points: FloatArray) -> None:
        self.ask = ask
        self.points = points
        self.answer: tuple[FloatArray, ...] = ()
        self.error: BaseException | None = None
        self._is_settled = threading.Lock()
        self._is_settled.acquire()

    def release(self) -> None:
        """Lets the thread that asked go on, with the answer or the error."""
        self._is_settled.release()

    def wait(self) -> tuple[FloatArray, ...]:
        self._is_settled.acquire()
        if self.error is not None:
            raise self.error
        return self.answer


class Task:
    """A function that runs in a thread of its own."""

    def __init__(self, function: Callable[[], Any], inbox: SimpleQueue[Task | Question]) -> None:
        self._function = function
        self._inbox = inbox
        self.is_running = False
        self.value: Any = None
        self.error: BaseException | None = None

    def start(self) -> None:
        self.is_running = True
        context = contextvars.copy_context()  # NumPy keeps its errstate there
        threading.Thread(target=context.run, args=(self._work,), name="demos-hpc sampler", daemon=True).start()

    def _work(self) -> None:
        try:
            self.value = self._function()
        except BaseException as error:
            self.error = error
        self._inbox.put(self)


class Desk:
    """Questions of other threads, answered by the thread that opened it."""

    def __init__(self) -> None:
        self._inbox: SimpleQueue[Task | Question] = SimpleQueue()
        self._waiting: deque[Question] = deque()
        self._lock = threading.Lock()
        self._is_open = True
        #: How many questions were asked so far.
        self.n_asked = 0

    def ask(self, ask: Ask, points: FloatArray) -> tuple[FloatArray, ...]:
        """From another thread: waits for ``ask(points)``, with or without other threads' points."""
        question = Question(ask, points)
        with self._lock:
            if not self._is_open:
                raise Stopped("the model is no longer being asked")
            self._inbox.put(question)
        return question.wait()

    def close(self) -> None:
        """Whoever still waits, or asks from now on, is told to stop."""
        with self._lock:
            self._is_open = False
        while not self._inbox.empty():
            self._take()
        self._turn_away()

    def map(self, function: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
        """``[function(item) for item in items]``, all of them stopping together wherever they ask.

        Never do two of them run at once, and the order is always the same: what is not made for threads works
        too, and results do not depend on timing.
        """
        values: list[Any] = []
        for start in range(0, len(items), MOST_THREADS):
            wave = items[start : start + MOST_THREADS]
            values += self._walk([Task(partial(function, item), self._inbox) for item in wave])
        return values

    def _walk(self, tasks: list[Task]) -> list[Any]:
        try:
            for task in tasks:
                task.start()
                self._take_step()
            while self._waiting:
                self._answer()
                for _ in range(len(self._waiting)):
                    self._waiting.popleft().release()
                    self._take_step()
        except BaseException:
            # Samplers print the error of each function that fails; the first one has been printed.
            with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
                while any(task.is_running for task in tasks):
                    self._turn_away()
                    self._take()
            raise
        return [task.value for task in tasks]

    def run(self, function: Callable[[], Any]) -> Any:
        """``function()`` in a thread, which may start others; whatever they ask meanwhile is answered."""
        task = Task(function, self._inbox)
        task.start()
        while task.is_running:
            self._take()
            while not self._inbox.empty():
                self._take()
            self._answer()
            while self._waiting:
                self._waiting.popleft().release()
        if task.error is not None:
            raise task.error
        return task.value

    def _take(self) -> Task | Question:
        arrived = self._inbox.get()
        if isinstance(arrived, Task):
            arrived.is_running = False
        else:
            self._waiting.append(arrived)
            self.n_asked += 1
        return arrived

    def _take_step(self) -> None:
        """One thread runs, until it asks or ends."""
        arrived = self._take()
        if isinstance(arrived, Task) and arrived.error is not None:
            raise arrived.error

    def _answer(self) -> None:
        """Fills in the answers of all that wait: one call for each function that is asked."""
        groups: dict[Ask, list[Question]] = {}
        for question in self._waiting:
            groups.setdefault(question.ask, []).append(question)
        for ask, group in groups.items():
            try:
                answers = ask(np.concatenate([question.points for question in group]))
            except Exception as error:
                for question in group:
                    question.error = error
                continue
            stop = 0
            for question in group:
                start, stop = stop, stop + len(question.points)
                question.answer = tuple(answer[start:stop] for answer in answers)

    def _turn_away(self) -> None:
        while self._waiting:
            question = self._waiting.popleft()
            question.error = Stopped("the analysis was stopped")
            question.release()


@contextmanager
def open_desk() -> Iterator[Desk]:
    """A desk at which this thread answers."""
    owner, desk = threading.get_ident(), Desk()
    outer = _desks.get(owner)
    _desks[owner] = desk
    try:
        yield desk
    finally:
        if outer is None:
            del _desks[owner]
        else:
            _desks[owner] = outer
        desk.close()


def bring(owner: int, ask: Ask, points: FloatArray) -> tuple[FloatArray, ...]:
    """``ask(points)``, computed by the thread ``owner`` where that has a desk open for others."""
    desk = None if threading.get_ident() == owner else _desks.get(owner)
    return ask(points) if desk is None else desk.ask(ask, points)
