"""Programs that are given a connection: workers and clients that know nothing of doors.

The programs of these tests are scripts that speak frames over a socket, as one in C would.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from inside import Hall, ServerHere, Thread
from serving import ENDING, OPENING, serving, wait_until

from demos_hpc import children, dialing, handover, joining
from demos_hpc.config import Config
from demos_hpc.errors import InvalidInput, ModelCrashed, ModelNotFound, NotOffered, ServerLost
from demos_hpc.handover import MOST_SPEC_BYTES, Program, call, read_description, work
from demos_hpc.joining import join
from demos_hpc.testing import Gaussian

POINT = np.array([0.5, 2.0])
X = np.random.default_rng(11).normal(size=(40, 1))
TRUTH = Gaussian().log_density(X, POINT)
#: What every program begins with: how it is connected, how frames are sent and received.
PREFACE = """#!{python}
import json, os, signal, socket, sys
sys.path[:0] = {path!r}
import numpy as np
from demos_hpc.messages import Kind, Offer, Operation, from_json, to_json
from demos_hpc.testing import Gaussian
from demos_hpc.model import LoadedModel
from demos_hpc.wire import Frame, lay_out, pack, read_header

ticket = json.loads(os.environ["DEMOS_TICKET"])
with open(__file__ + ".tickets", "a") as file:
    print(json.dumps([os.getpid(), ticket, os.environ.get("DEMOS_SPEC"), sys.argv[1:]]), file=file)
link = socket.socket(fileno=ticket["fd"])
assert os.read(ticket["end"], 1)

def send(packed):
    for view in lay_out(packed):
        link.sendall(view)

def read(size):
    data = bytearray()
    while len(data) < size:
        part = link.recv(min(size - len(data), 1 << 20))
        if not part:
            raise ConnectionError("the server is gone")
        data += part
    return data

def receive():
    data = read(64)
    header = read_header(data)
    data += read(header.payload + -header.payload % 8)
    return Frame(header, data)
"""
#: Rows above 100 let it do what its first argument says.
WORKER = """
model = LoadedModel(Gaussian())
spec = model.spec.with_operations(["log_density", "log_likelihood"]).to_dict()
send(pack(Kind.HELLO, [to_json(Offer(ticket["name"], "a program", "its file", spec).to_dict())]))

def misbehave(how):
    if how == "sleep":
        signal.pause()
    if how.startswith("SIG"):
        os.kill(os.getpid(), getattr(signal, how))
    os._exit(int(how))

try:
    while (frame := receive()).header.kind != Kind.END:
        header = frame.header
        if header.kind == Kind.CHUNK:
            x, params = frame.arrays
            if (x > 100).any():
                misbehave(sys.argv[1])
            told = dict(operation=header.operation, id=header.id, first_row=header.first_row, n_rows=header.n_rows)
            send(pack(Kind.RESULT, [model.log_density(x, params)], **told))
except ConnectionError:
    os.write(ticket["end"], b"L" * {says})
    sys.exit({lost})
os.write(ticket["end"], b"E" * {says})
"""
CLIENT = """
send(pack(Kind.REQUEST, operation=Operation.METADATA, id=1))
handle = from_json(receive().arrays[0])["handle"]
x = np.array([[0.25]])
send(pack(Kind.REQUEST, [x, np.array([0.5, 2.0])], operation=Operation.LOG_DENSITY, id=2, model=handle, n_rows=1))
print("density", float(receive().arrays[0][0]), flush=True)
how = sys.argv[1]
os.kill(os.getpid(), getattr(signal, how)) if how.startswith("SIG") else sys.exit(int(how))
"""


class Script:
    """A program that is a script; ``tickets`` are what it was given each time."""

    def __init__(self, path: Path, text: str) -> None:
        self.path = path
        package = str(Path(handover.__file__).parents[1])
        path.write_text(PREFACE.format(python=sys.executable, path=[package]) + text, encoding="utf-8")
        path.chmod(0o755)

    @property
    def tickets(self) -> list[Any]:
        file = Path(f"{self.path}.tickets")
        return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Script]:
    """Writes a worker that says how it ended or does not, and ends with such a status where its server is lost."""

    def make(text: str = WORKER, says: int = 1, lost: int = 0) -> Script:
        return Script(tmp_path / "program", text.replace("{says}", str(says)).replace("{lost}", str(lost)))

    return make


@pytest.fixture
def deaf(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the main thread may handle signals."""
    quiet = SimpleNamespace(**{**vars(signal), "getsignal": lambda number: signal.SIG_IGN})
    monkeypatch.setattr(children, "signal", quiet)
    monkeypatch.setattr(joining, "LONGEST_PAUSE", 0.05)


class Job(Thread):
    """A program that works for a server of this process."""

    def __init__(self, name: str, config: Config, program: Program) -> None:
        self.status: int | None = None

        def run() -> None:
            self.status = work(name, config, program)

        super().__init__(run, "a program's keeper")
        self.start()


def start(server: ServerHere, script: Script, *arguments: str, n_workers: int = 1, spec: str = "") -> Job:
    """A worker that is there."""
    job = Job(server.name, server.config, Program(str(script.path), arguments, spec))
    server.workers.append(job)
    server.wait_for_entry(lambda entry: entry.workers == n_workers, "the program")
    return job


# ---- in this process ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("way", "says"), [("unix", 1), ("unix", 0), ("tcp", 1), ("tcp", 0), ("tls", 1), ("tls", 0)])
@pytest.mark.usefixtures("deaf")
def test_a_program_works_until_the_server_ends(
    hall: Hall, make: Callable[..., Script], monkeypatch: pytest.MonkeyPatch, way: str, says: int
) -> None:
    monkeypatch.setenv("HOME", str(hall.directory))
    monkeypatch.setenv("DEMOS_SPEC", "of somebody else")
    if way != "unix":
        monkeypatch.setattr(dialing, "TRANSPORTS", ("tcp",))
    server = hall.open("", workers=0, tls="on" if way == "tls" else "off")
    spec = hall.directory / "model.json"
    spec.write_text('{"name": "x"}', encoding="utf-8")
    script = make(says=says)
    job = start(server, script, "a b", "--c", spec=str(spec))
    with server.connect() as model:
        np.testing.assert_array_equal(model.log_density(X, POINT), TRUTH)
        x = np.random.default_rng(5).normal(size=(300_000, 1))
        np.testing.assert_array_equal(model.log_density(x, POINT), Gaussian().log_density(x, POINT))
        with pytest.raises(NotOffered, match="hold no data"):
            model.upload(X)
        with server.operate() as operator:
            (told,) = operator.list_workers()
            assert told["transport"] == ("unix" if way == "unix" else "tcp")
    server.stop()
    assert job.end() is None
    assert job.status == 0
    ((pid, ticket, described, words),) = script.tickets
    assert pid != os.getpid()
    assert re.fullmatch(r"worker \d+", ticket["name"])
    assert {key: ticket[key] for key in ("role", "server", "heartbeat")} == {
        "role": "worker", "server": "here", "heartbeat": server.config.heartbeat,
    }  # fmt: skip
    assert (described, words) == (str(spec), ["a b", "--c"])


ENDS = {
    "SIGSEGV": r"program' \(worker \d+\) was ended by signal 11 \(SIGSEGV\): it has used memory that is not its own$",
    "SIGABRT": r"signal 6 \(SIGABRT\): it has called abort\(\)",
    "SIGUSR1": r"was ended by signal 10 \(SIGUSR1\)$",
    "SIGRTMIN": r"was ended by signal 34 \(SIGRTMIN\)$",
    "3": r"ended with exit status 3: it has called exit\(\) or STOP, or main\(\) has returned, though the",
    "0": r"ended with exit status 0: it has called exit",
}


@pytest.mark.parametrize("how", ENDS)
@pytest.mark.parametrize("way", ["unix", "tls"])
@pytest.mark.usefixtures("deaf")
def test_a_program_that_ends_in_mid_service(
    hall: Hall, make: Callable[..., Script], monkeypatch: pytest.MonkeyPatch, how: str, way: str
) -> None:
    monkeypatch.setenv("HOME", str(hall.directory))
    monkeypatch.setattr(handover, "HANGING_UP", 0.05)
    if way == "tls":
        monkeypatch.setattr(dialing, "TRANSPORTS", ("tcp",))
    server = hall.open("", workers=0, tls="on" if way == "tls" else "off")
    job = start(server, make(), how)
    row = np.full((1, 1), 200.0)
    with server.connect() as model:
        answer = model.submit.log_density(row, POINT)
        error = job.end()
        assert isinstance(error, ModelCrashed)
        assert re.search(ENDS[how], str(error))
        server.workers.clear()
        start(server, make(WORKER.replace("(x > 100).any()", "False")))
        np.testing.assert_array_equal(answer.result(), Gaussian().log_density(row, POINT))


@pytest.mark.parametrize(("says", "lost"), [(1, 0), (1, 7), (0, 7)])
@pytest.mark.parametrize("way", ["unix", "tls"])
@pytest.mark.usefixtures("deaf")
def test_a_server_that_is_lost_is_looked_for(
    hall: Hall,
    make: Callable[..., Script],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    says: int,
    lost: int,
    way: str,
) -> None:
    monkeypatch.setenv("HOME", str(hall.directory))
    if way == "tls":
        monkeypatch.setattr(dialing, "TRANSPORTS", ("tcp",))
    settings = {"tls": "on" if way == "tls" else "off"}
    server = hall.open("", workers=0, **settings)
    script = make(says=says, lost=lost)
    job = start(server, script)
    server.crash()
    again = hall.open("", workers=0, **settings)
    again.wait_for_entry(lambda entry: entry.workers == 1, "it is back")
    with again.connect() as model:
        np.testing.assert_array_equal(model.log_density(X, POINT), TRUTH)
    again.stop()
    assert job.end() is None
    assert job.status == 0
    assert len(script.tickets) == 2
    assert "the connection to server 'here' was lost; looking for it" in capfd.readouterr().err


@pytest.mark.usefixtures("deaf")
def test_a_server_that_is_gone_for_good(
    hall: Hall, make: Callable[..., Script], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joining, "PATIENCE", 0.1)
    server = hall.open("", workers=0)
    job = start(server, make())
    server.crash()
    assert isinstance(job.end(), ServerLost)


@pytest.mark.usefixtures("deaf")
def test_a_file_that_is_no_program(hall: Hall, tmp_path: Path) -> None:
    server = hall.open("", workers=0)
    (tmp_path / "data").write_bytes(b"\0\1\2")
    (tmp_path / "data").chmod(0o755)
    with pytest.raises(InvalidInput, match=r"program '.*/data' cannot be executed: Exec format error"):
        work("here", server.config, Program(str(tmp_path / "data")))


def test_a_server_of_programs_has_no_model_to_load(hall: Hall) -> None:
    server = hall.open("", workers=0)
    with pytest.raises(InvalidInput, match=r"workers of server 'here' are a program: join it by .* --exec ./program"):
        join("here", server.config)


# ---- clients --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("how", "status"), [("0", 0), ("5", 5), ("SIGSEGV", 139)])
@pytest.mark.parametrize("way", ["unix", "tls"])
@pytest.mark.usefixtures("deaf")
def test_a_client_that_is_a_program(
    hall: Hall,
    make: Callable[..., Script],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    how: str,
    status: int,
    way: str,
) -> None:
    monkeypatch.setenv("HOME", str(hall.directory))
    server = hall.open(tls="on" if way == "tls" else "off")
    if way == "tls":
        monkeypatch.setattr(dialing, "TRANSPORTS", ("tcp",))
    script = make(CLIENT)
    for name in ("here", "gaussian"):
        assert call(name, server.config, Program(str(script.path), (how,))) == status
    density = Gaussian().log_density(np.array([[0.25]]), POINT)[0]
    assert capfd.readouterr().out == f"density {density}\n" * 2
    _, ticket, _, _ = script.tickets[0]
    assert (ticket["role"], ticket["server"], ticket["heartbeat"]) == ("client", "here", 0.0)
    with pytest.raises(ServerLost, match="no server or model 'nobody'"):
        call("nobody", server.config, Program(str(script.path)))


# ---- files ----------------------------------------------------------------------------------------------------------


def test_programs_that_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text").touch()
    (tmp_path / "tool").touch(0o755)
    assert Program("./tool", ("a",)).command == ["./tool", "a"]
    assert Program("sh").command == ["sh"]
    with pytest.raises(ModelNotFound, match=r"there is no program './none' \(from /"):
        Program("./none")
    with pytest.raises(InvalidInput, match=r"program '\./text' cannot be executed; try chmod \+x text"):
        Program("./text")
    with pytest.raises(InvalidInput, match=r"program 'tool' cannot be executed; try \./tool"):
        Program("tool")
    with pytest.raises(InvalidInput, match=r"program '\.' is a directory"):
        Program(".")
    with pytest.raises(ModelNotFound, match=r"model file 'no\.json' does not exist"):
        Program("sh", spec="no.json")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[1]", r"m.json is no object of JSON, \{...\}"),
        (b"{", r"m.json cannot be read: Expecting"),
        (b'{"name": "\xff"}', r"m.json cannot be read: .*utf-8"),
        (b"[" * 100_000, r"m.json cannot be read: maximum recursion"),
        (b" " * (MOST_SPEC_BYTES + 1), r"m.json has 1048577 bytes; .* at most 1048576"),
    ],
)
def test_descriptions_that_are_none(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "m.json").write_bytes(content)
    with pytest.raises(InvalidInput, match=message):
        read_description(str(tmp_path / "m.json"))
    (tmp_path / "m.json").write_text('{"name": "\u00e4"}', encoding="utf-8")
    assert read_description(str(tmp_path / "m.json")) == '{"name": "\u00e4"}'


# ---- by commands ----------------------------------------------------------------------------------------------------


def test_a_server_whose_workers_are_a_program(tmp_path: Path, make: Callable[..., Script]) -> None:
    script = make()
    (tmp_path / "model.json").write_text("{}", encoding="utf-8")
    words = ["--exec", str(script.path), "--spec", "model.json", "SIGSEGV"]
    with serving(words, tmp_path, workers=2) as server:
        with server.connect(timeout=OPENING) as model:
            np.testing.assert_array_equal(model.log_density(X, POINT), TRUTH)
            with pytest.raises(ModelCrashed):
                model.log_density(np.full((1, 1), 200.0), POINT)
            np.testing.assert_array_equal(model.log_density(X, POINT), TRUTH)
        with server.operate() as operator:
            wait_until(lambda: len(operator.list_workers()) == 2, OPENING, "all are there again")
    assert server.process.returncode == 0
    assert server.log.count("was ended by signal 11 (SIGSEGV): it has used memory that is not its own") >= 2
    assert "Traceback" not in server.log
    assert len(script.tickets) >= 4
    assert {(described, *words) for _, _, described, words in script.tickets} == {
        (str(tmp_path / "model.json"), "SIGSEGV")
    }


def test_a_worker_that_is_told_to_end_ends_its_program(hall: Hall, make: Callable[..., Script]) -> None:
    server = hall.open("", workers=0)
    environment = {**os.environ, "DEMOS_REGISTRY": str(hall.registry), "DEMOS_KEY_FILE": str(hall.key_file)}
    environment |= {"DEMOS_AUTHENTICATION": "key"}
    script = make()
    words = [sys.executable, "-m", "demos_hpc", "worker", "--join", "here", "--exec", str(script.path)]
    with subprocess.Popen(words, env=environment) as process:
        server.wait_for_entry(lambda entry: entry.workers == 1, "the program")
        process.send_signal(signal.SIGTERM)
        assert process.wait(ENDING) == 128 + signal.SIGTERM
    server.wait_for_entry(lambda entry: entry.workers == 0, "is gone")
    with pytest.raises(ProcessLookupError):
        os.kill(script.tickets[0][0], 0)
