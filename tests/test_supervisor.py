"""Whoever keeps a server running: what it does about each death, and real servers whose processes are killed."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from inside import GAUSSIAN, SOON
from launching import end_marked
from serving import ENDING, OPENING, Operator, ServerApart, serving, wait_until
from test_endpoint import ENDPOINT
from test_survey import make

from demos_hpc import supervisor as supervisor_module
from demos_hpc.client import RemoteModel
from demos_hpc.config import Config
from demos_hpc.errors import DemosError, LaunchError, ServerLost
from demos_hpc.handover import Program
from demos_hpc.identity import find_user
from demos_hpc.messages import Operation
from demos_hpc.registry import Registry
from demos_hpc.supervisor import FIRST_PAUSE, LONGEST_PAUSE, MOST_FAILURES, Child, Supervisor
from demos_hpc.testing import Gaussian

POINT = np.array([0.5, 2.0])
X = np.random.default_rng(11).normal(size=(40, 1))
TRUTH = Gaussian().log_density(X, POINT)


# ---- children --------------------------------------------------------------------------------------------------


def shell(text: str) -> list[str]:
    return ["/bin/sh", "-c", text]


def wait_for_end(child: Child) -> None:
    assert select.select([child.handle], [], [], SOON)[0]
    assert child.has_ended()


@pytest.fixture
def child() -> Iterator[Child]:
    child = Child("child")
    yield child
    child.end(0.0)


def test_a_child_that_ends_is_noticed_once_and_may_be_started_again(child: Child) -> None:
    n_files = len(os.listdir("/proc/self/fd"))
    for status in (0, 3):
        assert not child.has_ended()
        child.start(shell(f"exit {status}"), {})
        wait_for_end(child)
        assert not child.has_ended()
        assert child.status == status
    assert len(os.listdir("/proc/self/fd")) == n_files


def test_a_child_is_killed_with_all_that_it_has_started(child: Child) -> None:
    child.kill()  # nobody there
    reader, writer = os.pipe()
    child.start(shell(f"sleep 1000 & echo ready > /proc/{os.getpid()}/fd/{writer}; wait"), {})
    assert os.read(reader, 100) == b"ready\n"
    os.close(writer)
    assert child.process is not None
    group = child.process.pid
    child.kill()
    wait_for_end(child)
    assert child.status == -signal.SIGKILL
    wait_until(lambda: not is_there(group), SOON, "the grandchild is gone as well")
    os.close(reader)
    child.kill()


def is_there(group: int) -> bool:
    """Whether a process of this group lives."""
    for directory in Path("/proc").iterdir():
        if directory.name.isdigit():
            try:
                fields = (directory / "stat").read_text(encoding="ascii").rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[2]) == group and fields[0] != "Z":
                return True
    return False


def test_a_child_that_does_not_end_is_ended(child: Child) -> None:
    child.end(0.0)
    child.start(shell("trap '' TERM; sleep 1000"), {})
    child.end(0.0)
    assert child.process is None


# ---- decisions -------------------------------------------------------------------------------------------------


class Ward(Supervisor):
    """A supervisor whose dispatcher says what the test wants, and whose children are shells."""

    def __init__(self, directory: Path, n_workers: int = 2) -> None:
        config = Config().changed(registry=str(directory / "registry"), key_file=str(directory / "key"))
        super().__init__("model.py:Model", n_workers, "ward", config)
        self.description: dict[str, Any] | None = {
            "careers": {}, "workers": [], "evicted": [], "is_stopping": False,
        }  # fmt: skip
        self.commands: list[tuple[str, ...]] = []
        self.does = "exec sleep 1000"
        self.n_starts = 0

    def _ask(self, operation: Operation, question: dict[str, Any] | None = None) -> dict[str, Any] | None:
        return self.description

    def _run(self, child: Child, *words: str) -> None:
        self.commands.append(words)
        child.start(shell(self.does), {})

    def _start_dispatcher(self) -> None:
        self.n_starts += 1
        self._id = ENDPOINT.id
        self._dispatcher.start(shell("exec sleep 1000"), {})

    def tell(self, **changes: Any) -> None:
        assert self.description is not None
        self.description |= changes

    def bury(self, nth: int = 0) -> Child:
        """A worker dies."""
        child = self._workers[nth]
        child.kill()
        if child.process is not None:
            wait_for_end(child)
        self._mourn(child)
        return child


@pytest.fixture
def ward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ward]:
    monkeypatch.setattr(supervisor_module, "LOOK", 0.01)
    ward = Ward(tmp_path)
    ward._start_dispatcher()
    ward._turn()
    yield ward
    for child in (ward._dispatcher, *ward._workers):
        child.end(0.0)


def test_workers_are_started_by_names_of_their_own(ward: Ward) -> None:
    words = [dict(zip(command[1::2], command[2::2], strict=True)) for command in ward.commands]
    assert [command[0] for command in ward.commands] == ["worker", "worker"]
    assert [(word["--join"], word["--label"]) for word in words] == [("ward", "ward.0#1"), ("ward", "ward.1#1")]
    assert {word["--family"] for word in words} == {ward._family}
    assert all(worker.process is not None for worker in ward._workers)


def test_workers_may_be_a_program(ward: Ward, tmp_path: Path) -> None:
    spec = tmp_path / "m.json"
    spec.write_text("{}", encoding="utf-8")
    plain = ward._name_program()
    ward._program = Program("sh")
    short = ward._name_program()
    ward._program = Program("sh", ("-c", "exit 3"), str(spec))
    assert (plain, short) == ([], ["--exec", "sh"])
    assert ward._name_program() == ["--exec", "sh", "--spec", str(spec), "--", "-c", "exit 3"]
    for _ in range(MOST_FAILURES - 1):
        ward.bury()
    with pytest.raises(LaunchError, match=r"3 times in a row: what they said stands above$"):
        ward.bury()


def test_who_did_something_is_replaced_at_once(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor_module, "FIRST_PAUSE", 0.0)
    for generation in range(1, 4):
        ward.tell(careers={f"ward.0#{generation}": 7})
        ward.bury()
        ward._workers[0].start_at = 0.0
        ward._turn()
        assert ward.commands[-1][-1] == f"ward.0#{generation + 1}"
    assert ward._workers[0].pause < 1.0


def test_who_did_nothing_is_replaced_after_a_pause_that_doubles(ward: Ward) -> None:
    pauses = []
    ward.tell(careers={"ward.0#1": 0})
    for _ in range(12):
        worker = ward.bury()
        pauses.append(worker.pause)
    assert pauses[:3] == [2 * FIRST_PAUSE, 4 * FIRST_PAUSE, 8 * FIRST_PAUSE]
    assert pauses[-1] == LONGEST_PAUSE
    ward.tell(careers={"ward.0#1": 1})
    assert ward.bury().pause == 2 * FIRST_PAUSE


def test_a_model_that_cannot_start_three_times_in_a_row_is_given_up(ward: Ward) -> None:
    for _ in range(MOST_FAILURES - 1):
        ward.bury()
    with pytest.raises(LaunchError, match="workers of server 'ward' could not start, 3 times in a row: what they said"):
        ward.bury(1)


def test_in_a_row_means_that_none_could(ward: Ward) -> None:
    for _ in range(5):
        for _ in range(MOST_FAILURES - 1):
            ward.bury()
        ward.tell(careers={"ward.1#1": 0})
        ward.bury(1)
        ward.tell(careers={})


def test_a_server_whose_other_workers_serve_is_not_given_up(ward: Ward) -> None:
    ward.tell(workers=[{"name": "ward.1", "is_alive": True}])
    for _ in range(3 * MOST_FAILURES):
        ward.bury()
    ward.tell(workers=[{"name": "ward.1", "is_alive": False}])
    with pytest.raises(LaunchError):
        ward.bury()


def test_without_a_dispatcher_nobody_is_blamed(ward: Ward) -> None:
    ward.description = None
    for _ in range(2 * MOST_FAILURES):
        ward.bury()
    assert ward._workers[0].start_at > 0


def test_a_worker_that_was_given_up_is_killed(ward: Ward) -> None:
    ward.tell(evicted=["ward.1#1", "ward.0#7"])
    ward._look(0.0)
    wait_for_end(ward._workers[1])
    assert ward._workers[1].status == -signal.SIGKILL
    assert not ward._workers[0].has_ended()


def test_a_server_that_others_stop_is_left_alone(ward: Ward) -> None:
    ward.tell(is_stopping=True)
    ward._look(0.0)
    assert ward._is_told


def test_a_dispatcher_that_was_told_to_end_is_not_replaced(ward: Ward) -> None:
    ward._dispatcher.kill()
    wait_for_end(ward._dispatcher)
    ward._dispatcher.start(shell("exit 0"), {})
    assert select.select([ward._dispatcher.handle], [], [], SOON)[0]
    ward._turn()
    assert ward._is_told
    assert ward.n_starts == 1


def test_a_dispatcher_that_dies_is_replaced_and_its_entry_goes(ward: Ward, capfd: pytest.CaptureFixture[str]) -> None:
    ward._registry.publish(replace(ENDPOINT, name="ward"))
    for n_starts in (2, 3):
        ward._dispatcher.kill()
        assert select.select([ward._dispatcher.handle], [], [], SOON)[0]
        ward._turn()
        assert ward.n_starts == n_starts
        assert ward._registry.list()[0] == []
    assert ward._dispatcher.pause == 4 * FIRST_PAUSE
    ward._look(0.0)  # it answers
    assert ward._dispatcher.pause == FIRST_PAUSE
    assert not ward._is_told
    assert "server 'ward' has lost its dispatcher; it is started again" in capfd.readouterr().err


def test_who_is_told_to_stop_does_not_wait_for_a_pause(ward: Ward) -> None:
    ward._dispatcher.pause = 1000.0
    ward._take_signal(signal.SIGTERM, None)
    ward._dispatcher.kill()
    assert select.select([ward._dispatcher.handle], [], [], SOON)[0]
    ward._turn()


def test_a_dispatcher_that_does_not_answer_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(supervisor_module, "PATIENCE", 0.01)

    class Deaf:
        def ask(self, operation: Operation, question: dict[str, Any]) -> Any:
            return self

        def result(self, timeout: float) -> Any:
            raise TimeoutError(f"nothing within {timeout} s")

    supervisor = Supervisor("model", 0, "ward", Config().changed(registry=str(tmp_path)))
    supervisor._dispatcher.start(shell("exec sleep 1000"), {})
    supervisor._operator = Deaf()  # type: ignore[assignment]
    assert supervisor._ask(Operation.STATISTICS) is None
    wait_for_end(supervisor._dispatcher)
    assert supervisor._ask(Operation.STATISTICS) is None
    assert "the dispatcher of server 'ward' has not answered for 0.01 s and is ended" in capfd.readouterr().err


def test_what_this_job_left_before_it_began_anew_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "41")
    registry = Registry(tmp_path)
    user = find_user()
    kept = [
        make("ward", age=0.5, user=user, job="41"),  # which lives
        make("ward", age=1000, user=user, job="42"),
        make("other", age=1000, user=user, job="41"),
    ]
    for endpoint in (*kept, make("ward", age=1000, user=user, job="41", hostname="node17")):
        registry.publish(endpoint)
    supervisor = Supervisor("model", 0, "ward", Config().changed(registry=str(tmp_path)))
    monkeypatch.setattr(supervisor, "_start_dispatcher", lambda: setattr(supervisor, "_is_told", True))
    assert supervisor.run() == 0
    assert {endpoint.id for endpoint in registry.list()[0]} == {endpoint.id for endpoint in kept}


def test_at_the_end_all_are_ended_in_time(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor_module, "LEAVING", 0.1)
    ward.description = None
    ward._workers[0].kill()
    wait_for_end(ward._workers[0])
    ward._workers[0].start(shell("trap '' TERM; sleep 1000"), {})
    ward._end()
    assert all(child.process is None for child in (ward._dispatcher, *ward._workers))


# ---- real servers ----------------------------------------------------------------------------------------------


def find_worker(operator: Operator, name: str) -> dict[str, Any]:
    return next(worker for worker in operator.look()["workers"] if worker["name"] == name)


def test_a_server_outlives_its_workers_and_its_dispatcher(tmp_path: Path) -> None:
    with serving(GAUSSIAN, tmp_path, workers=2, heartbeat=1.0) as server:
        first = server.find()
        assert first is not None
        with server.connect(reconnect=True, timeout=SOON) as model:
            np.testing.assert_array_equal(model.log_density(X, POINT), TRUTH)
            assert model.set_params(mu=3.0) == 2
            with server.operate() as operator:
                before = find_worker(operator, "apart.0")
                os.kill(before["pid"], signal.SIGKILL)
                after = wait_until(
                    lambda: (now := find_worker(operator, "apart.0"))["is_alive"] and now["restarts"] == 1 and now,
                    OPENING,
                    "the worker was replaced",
                )
                assert after["pid"] != before["pid"]
                assert operator.look()["events"]["crashes"] == 1
            workers = {worker["pid"] for worker in list_workers(server)}
            os.kill(first.pid, signal.SIGKILL)
            np.testing.assert_array_equal(model.log_density(X), Gaussian().log_density(X, np.array([3.0, 1.0])))
            assert model.metadata()["revision"] == 2
            second = server.wait_until_ready(2)
            assert (second.name, second.id == first.id, second.pid == first.pid) == ("apart", False, False)
            assert {worker["pid"] for worker in list_workers(server)} == workers  # they have found it themselves
            assert [entry.id for entry in server.registry.list()[0]] == [second.id]
        os.kill(second.pid, signal.SIGTERM)  # as good as an operator
        assert server.process.wait(ENDING) == 0
        assert server.registry.list()[0] == []
    assert server.log.count("it is started again") == 1


def find_error(model: RemoteModel) -> DemosError | None:
    """What a question ends with, if with an error."""
    try:
        model.metadata()
    except DemosError as error:
        return error
    return None


def list_workers(server: ServerApart) -> list[dict[str, Any]]:
    with server.operate() as operator:
        return operator.list_workers()


def ask_for_ever(model: RemoteModel) -> None:
    while True:
        model.metadata()


def test_a_server_that_an_operator_stops_is_not_started_again(tmp_path: Path) -> None:
    with serving(GAUSSIAN, tmp_path, workers=1) as server:
        with server.connect() as model, server.operate() as operator:
            operator._connection.ask(Operation.STOP, {}).result(timeout=SOON)
            with pytest.raises(ServerLost):
                ask_for_ever(model)
        assert server.process.wait(ENDING) == 0
        assert server.registry.list()[0] == []
        assert "started again" not in server.log


def test_who_is_told_twice_ends_at_once(tmp_path: Path) -> None:
    """A worker is in the middle of something that takes for ever."""
    (tmp_path / "stuck.py").write_text(
        "import signal\nfrom demos_hpc.testing import Gaussian\n\n\nclass Stuck(Gaussian):\n"
        "    def log_density(self, x, params):\n        signal.pause()\n",
        encoding="utf-8",
    )
    with (
        serving(f"{tmp_path}/stuck.py:Stuck", tmp_path, workers=1) as server,
        server.connect() as model,
        server.operate() as operator,
    ):
        answer = model.submit.log_density(np.zeros((1, 1)), np.array([0.0, 1.0]))
        wait_until(lambda: operator.look()["queue"]["length"], SOON, "the request is there")
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: "ends after 1 request under way" in server.log, ENDING, "what is under way is told")
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(ENDING) == 0
        with pytest.raises(ServerLost):
            answer.result()


def test_a_server_whose_supervisor_is_killed_ends(tmp_path: Path) -> None:
    server = ServerApart(GAUSSIAN, tmp_path, workers=1)
    try:
        server.wait_until_ready(1)
        server.process.kill()
        server.process.wait()
        assert end_marked(server.mark, ENDING) == ()
        assert server.registry.list()[0] == []
        assert "the supervisor is gone; the server finishes what runs and ends" in server.log
    finally:
        server.stop()


def test_a_model_that_cannot_be_loaded_stops_the_server(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(
        "def find():\n    raise OSError('no matrix elements')\n\nfind()\n", encoding="utf-8"
    )
    server = ServerApart("broken.py:Model", tmp_path, workers=1)
    try:
        assert server.process.wait(OPENING) not in (0, None)
        assert server.log.count("OSError: no matrix elements") >= MOST_FAILURES
        assert "in find" in server.log
        assert "workers of server 'apart' could not start, 3 times in a row" in server.log
        assert server.registry.list()[0] == []
        assert end_marked(server.mark, ENDING) == ()
    finally:
        server.stop()
