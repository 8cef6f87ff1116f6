"""Commands that look after servers, against servers that run."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from serving import ENDING, OPENING, ServerApart, serving, wait_until
from test_operating import GAUSSIAN, SLOW, unsupervised
from test_survey import make, make_abroad
from typer.testing import CliRunner, Result

import demos_hpc
from demos_hpc.calling import call
from demos_hpc.cli import app
from demos_hpc.cli.operators import DRAINING, EXIT_STATUS, GONE, NO_ANSWER, NOT_READY, READY, REFUSED
from demos_hpc.cli.watching import View, watch
from demos_hpc.config import Config
from demos_hpc.dialing import find_user
from demos_hpc.errors import ServerLost
from demos_hpc.identity import make_key_file
from demos_hpc.operating import Operator
from demos_hpc.registry import Registry
from demos_hpc.survey import SIGHTS

DEMOS = (sys.executable, "-m", "demos_hpc")
COMMANDS = ("ls", "stats", "top", "health", "drain", "stop")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerApart]:
    """A server that tests only look at."""
    with serving(GAUSSIAN, tmp_path_factory.mktemp("server"), workers=1, name="peak", heartbeat=0.5) as running:
        yield running


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """The one that commands see which are not told of another."""
    return Registry(tmp_path / "registry")


def invoke(*words: str, width: int = 140, **settings: Any) -> Result:
    """Runs a command in this process."""
    variables = {f"DEMOS_{name.upper()}": str(value) for name, value in settings.items()}
    return CliRunner().invoke(app, list(words), prog_name="demos-hpc", env={"COLUMNS": str(width), **variables})


def ask(config: Config, *words: str, width: int = 140, **settings: Any) -> Result:
    """The same among the servers that ``config`` finds."""
    return invoke(*words, width=width, registry=config.registry, key_file=config.key_file, **settings)


def read(result: Result) -> Any:
    """The standard JSON that a command has printed, all of its standard output."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(result.stdout, parse_constant=refuse)


def fail(result: Result) -> str:
    """The one line of a command that fails."""
    assert result.exit_code == 1, result.output
    assert "Traceback" not in result.output
    return " ".join(result.stderr.split())


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_each_command(command: str) -> None:
    result = invoke(command, "--help")
    assert result.exit_code == 0
    assert f"Usage: demos-hpc {command}" in result.stdout
    assert command in invoke("--help").stdout


@pytest.mark.parametrize("command", ["stats", "top", "drain", "stop"])
def test_a_server_that_is_not_there(command: str, server: ServerApart) -> None:
    text = fail(ask(server.config, command, "nobody"))
    assert text.startswith("demos-hpc: there is no server or model 'nobody' in ")
    assert text.endswith("there are: peak")


# ---- ls -------------------------------------------------------------------------------------------------------


def test_ls_shows_what_runs(server: ServerApart) -> None:
    result = ask(server.config, "ls")
    assert (result.exit_code, result.stderr) == (0, "")
    head, line = result.stdout.splitlines()
    assert head.split() == ["name", "model", "state", "host", "user", "workers", "clients", "load", "age", "address"]
    endpoint = server.find()
    assert endpoint is not None
    words = line.split()
    assert words[:4] == ["peak", "gaussian", "1.0.0", "ready"]
    assert words[4:8] == [endpoint.hostname, endpoint.user, "1", "0"]
    assert words[-1] == f"127.0.0.1:{endpoint.port}"


def test_ls_counts_clients_as_they_are_now(server: ServerApart) -> None:
    with server.connect(), server.connect():
        assert [e["clients"] for e in read(ask(server.config, "ls", "--json"))] == [2]


def test_ls_as_json(server: ServerApart) -> None:
    (entry,) = read(ask(server.config, "ls", "--json"))
    assert (entry["name"], entry["state"], entry["is_swept"], entry["transport"]) == ("peak", "ready", False, "unix")
    assert 0 < entry["answer_seconds"] < OPENING
    assert entry["models"][0]["name"] == "gaussian"


def test_ls_leaves_columns_out_where_there_is_no_room(server: ServerApart) -> None:
    for width in (40, 60, 80):
        lines = ask(server.config, "ls", width=width).stdout.splitlines()
        assert len(lines) == 2
        assert max(map(len, lines)) <= width
        assert lines[0].split()[:3] == ["name", "model", "state"]
    everything = ask(server.config, "ls", "--all", width=40).stdout.splitlines()
    assert everything[0].split()[-7:] == ["address", "answer", "id", "pid", "job", "path", "image"]
    assert everything[1].split()[-2:] == [GAUSSIAN, "-"]


def test_ls_of_nothing(registry: Registry) -> None:
    result = invoke("ls")
    assert result.stdout == f"no servers in {registry.directory}; start one by `demos-hpc serve MODEL --workers 2`\n"
    assert read(invoke("ls", "--json")) == []


def test_ls_shows_the_dead_once(server: ServerApart, registry: Registry) -> None:
    living = server.find()
    assert living is not None
    for endpoint in (living, make("gone"), make("far", boot="another", hostname="node18")):
        registry.publish(endpoint)
    (registry.directory / f"{'0' * 32}.json").write_text("{", encoding="utf-8")
    first, second = (invoke("ls", "--json", key_file=server.config.key_file) for _ in range(2))
    assert {e["name"]: (e["state"], e["is_swept"]) for e in read(first)} == {
        "peak": ("ready", False), "gone": ("dead", True), "far": ("elsewhere", False)
    }  # fmt: skip
    assert [e["name"] for e in read(second)] == ["far", "peak"]
    text = " ".join(first.stderr.split())
    assert f"skipped in the registry {registry.directory}: {'0' * 32}.json: is no JSON" in text
    assert "has died and is taken out of the registry: server 'gone' does not answer at" in text
    assert "is elsewhere: it listens on 127.0.0.1 of node18, and can be asked from there only" in text


def test_ls_in_a_table_of_all_states(server: ServerApart, registry: Registry) -> None:
    for endpoint in (make("gone"), make("far", boot="another", workers=7)):
        registry.publish(endpoint)
    lines = {line.split()[0]: line.split() for line in invoke("ls").stdout.splitlines()}
    assert lines["gone"][3:] == ["dead", "node17", "ada", "-", "-", "-", "-", "127.0.0.1:1"]
    assert lines["far"][3:7] == ["elsewhere", "node17", "ada", "7"]


def test_ls_of_servers_of_others(server: ServerApart, registry: Registry, tmp_path: Path) -> None:
    living = server.find()
    assert living is not None
    make_key_file(tmp_path / "key", find_user())
    registry.publish(replace(living, user="somebody"))
    result = invoke("ls", key_file=tmp_path / "key")
    assert result.stdout.splitlines()[1].split()[3:5] == ["not", "ours"]
    assert result.stderr == ""
    registry.publish(living)  # our own, and yet it refuses: worth a word
    assert "does not let you in" in invoke("ls", key_file=tmp_path / "key").stderr
    assert len(registry.list()[0]) == 1


# ---- health ---------------------------------------------------------------------------------------------------


def test_every_state_has_an_exit_status() -> None:
    assert set(EXIT_STATUS) == set(SIGHTS)
    assert set(EXIT_STATUS.values()) == {READY, NOT_READY, DRAINING, GONE, REFUSED, NO_ANSWER}
    assert not set(EXIT_STATUS.values()) & {1, 2}
    text = " ".join(invoke("health", "--help").stdout.split())
    for status in EXIT_STATUS.values():
        assert f" {status}: " in text


def test_health_of_a_ready_server(server: ServerApart) -> None:
    result = ask(server.config, "health", "peak")
    assert result.exit_code == READY
    (line,) = result.stdout.splitlines()
    assert line.startswith("peak: ready: 1 worker, 0 clients, load 0 s, answered in ")
    for name in ("gaussian", server.find().id[:8]):  # type: ignore[union-attr]
        assert ask(server.config, "health", name).exit_code == READY


def test_health_as_json(server: ServerApart) -> None:
    result = ask(server.config, "health", "gaussian", "--json")
    assert len(result.stdout.splitlines()) == 1
    told = read(result)
    assert (told["name"], told["state"], told["status"], told["workers"]) == ("gaussian", "ready", READY, 1)
    told = read(ask(server.config, "health", "nobody", "--json"))
    assert told == {"name": "nobody", "state": "gone", "status": GONE, "why": told["why"]}


def test_health_of_what_is_gone(registry: Registry, server: ServerApart) -> None:
    result = invoke("health", "nobody")
    assert (result.exit_code, result.stdout[:13]) == (GONE, "nobody: gone:")
    registry.publish(make("gone"))
    result = invoke("health", "gone")
    assert result.exit_code == GONE
    assert result.stdout.startswith("gone: gone: server 'gone' does not answer")
    assert len(result.stdout.splitlines()) == 1


def test_health_of_what_cannot_be_asked(registry: Registry) -> None:
    registry.publish(make("far", boot="another", hostname="node18"))
    result = invoke("health", "far")
    assert result.exit_code == NO_ANSWER
    assert result.stdout == "far: elsewhere: it listens on 127.0.0.1 of node18, and can be asked from there only\n"


def test_health_of_what_refuses(server: ServerApart, tmp_path: Path) -> None:
    make_key_file(tmp_path / "key", find_user())
    result = invoke("health", "peak", registry=server.config.registry, key_file=tmp_path / "key")
    assert (result.exit_code, result.stdout[:16]) == (REFUSED, "peak: not ours: ")


def test_health_of_what_hangs(server: ServerApart) -> None:
    endpoint = server.find()
    assert endpoint is not None
    os.kill(endpoint.pid, signal.SIGSTOP)
    try:
        result = ask(server.config, "health", "peak", "--timeout", "0.2")
    finally:
        os.kill(endpoint.pid, signal.SIGCONT)
    assert (result.exit_code, result.stdout[:14]) == (NO_ANSWER, "peak: silent: ")
    assert ask(server.config, "health", "peak").exit_code == READY


def test_the_best_of_several_counts(server: ServerApart, registry: Registry) -> None:
    living = server.find()
    assert living is not None
    for endpoint in (make("peak"), living, make_abroad("peak", age=60.0)):
        registry.publish(replace(endpoint, models=living.models))
    assert invoke("health", "gaussian", key_file=server.config.key_file).exit_code == READY


def test_health_before_there_is_a_worker_and_after_the_last_one(tmp_path: Path) -> None:
    with unsupervised(GAUSSIAN, tmp_path) as (config, endpoint):
        assert ask(config, "health", "alone").exit_code == READY
        with Operator(endpoint, config) as operator:
            (worker,) = operator.statistics()["workers"]
            os.kill(worker["pid"], signal.SIGKILL)
            wait_until(lambda: not operator.statistics()["workers"][0]["is_alive"], OPENING, "it is seen")
        result = ask(config, "health", "alone")
        assert result.exit_code == NOT_READY
        assert result.stdout.startswith("alone: starting: 0 workers, ")
        assert result.stdout.endswith("it has no worker that is ready\n")


# ---- stats ----------------------------------------------------------------------------------------------------


def test_stats(server: ServerApart) -> None:
    with server.connect() as model:
        model.log_density([[0.0], [1.0]])
    result = ask(server.config, "stats", "peak")
    assert (result.exit_code, result.stderr) == (0, "")
    for word in ("peak", "requests", "log_density", "peak.0", "unix", find_user()):
        assert word in result.stdout
    description = read(ask(server.config, "stats", "gaussian", "--json"))
    assert (description["server"], description["state"]) == ("peak", "ready")
    assert description["rows"] >= 2
    assert description["workers"][0]["is_alive"]


def test_stats_for_prometheus(server: ServerApart, tmp_path: Path) -> None:
    pytest.importorskip("prometheus_client")
    path = tmp_path / "peak.prom"
    result = ask(server.config, "stats", "peak", "--prometheus", str(path))
    assert (result.exit_code, result.output) == (0, "")
    assert 'demos_hpc_worker_up{model="gaussian",server="peak",worker="peak.0"} 1.0' in path.read_text(encoding="utf-8")
    assert read(ask(server.config, "stats", "peak", "--prometheus", str(path), "--json"))["server"] == "peak"
    assert "does not end in .prom" in fail(ask(server.config, "stats", "peak", "--prometheus", str(tmp_path / "x")))
    nowhere = tmp_path / "no" / "x.prom"
    text = fail(ask(server.config, "stats", "peak", "--prometheus", str(nowhere)))
    assert text == f"demos-hpc: {nowhere} cannot be written: No such file or directory"


@pytest.mark.parametrize("words", [["stats", "peak"], ["top", "peak"]])
def test_a_server_of_another_format(words: list[str], server: ServerApart, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("demos_hpc.cli.rates.FORMAT", 99)
    assert "install the same version" in fail(ask(server.config, *words))


# ---- top ------------------------------------------------------------------------------------------------------


def test_top_without_a_terminal_prints_one_table(server: ServerApart) -> None:
    result = ask(server.config, "top", "peak", "--interval", "0.3")
    assert (result.exit_code, result.stderr) == (0, "")
    assert "requests/s" in result.stdout
    assert "peak.0" in result.stdout
    assert "\x1b" not in result.stdout
    assert "rates and percentiles of the last " in result.stdout


@pytest.mark.parametrize("key", ["q", "\x03"])
def test_top_in_a_terminal_ends_by_a_key(key: str, server: ServerApart) -> None:
    with terminal([*DEMOS, "top", "peak", "--interval", "0.2"], server) as (process, type_, seen):
        wait_until(lambda: "requests/s" in seen(), OPENING, "the table is there")
        type_("x")  # of no meaning
        n_before = seen().count("requests/s")
        wait_until(lambda: seen().count("requests/s") > n_before, OPENING, "it is drawn again")
        type_(key)
        assert process.wait(ENDING) == 0, seen()
        assert "Traceback" not in seen()
        assert "\x1b[?1049l" in seen()  # the screen is as it was


@contextlib.contextmanager
def terminal(
    command: list[str], server: ServerApart, size: tuple[int, int] = (40, 120)
) -> Iterator[tuple[subprocess.Popen[bytes], Callable[[str], None], Callable[[], str]]]:
    """A command at a terminal of its own: the process, what types a key, and what returns all that it has shown."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
    shown = bytearray()
    environment = {**server.environment, "TERM": "xterm"}
    environment.pop("COLUMNS", None)

    def take_terminal() -> None:  # so that Ctrl-C is a signal
        signal.signal(signal.SIGINT, signal.default_int_handler)
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    process = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True,
        preexec_fn=take_terminal,
    )  # fmt: skip
    os.close(theirs)

    def see() -> str:
        with contextlib.suppress(OSError):  # EIO: nobody is at the other side any more
            while select.select([ours], [], [], 0)[0]:
                shown.extend(os.read(ours, 65536))
        return shown.decode(errors="replace")

    def type_(key: str) -> None:
        os.write(ours, key.encode())

    try:
        yield process, type_, see
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def test_top_goes_on_when_the_server_is_started_again(tmp_path: Path) -> None:
    with serving(GAUSSIAN, tmp_path, workers=1, name="phoenix", heartbeat=0.5) as server:
        view = View("phoenix", server.registry, server.config)
        view.look()
        endpoint = server.find()
        assert endpoint is not None
        os.kill(endpoint.pid, signal.SIGKILL)
        with pytest.raises(ServerLost) as lost:
            wait_until(view.look, OPENING, "it is missed")
        view.complain(str(lost.value))
        assert render(view).startswith("the connection to server phoenix")
        assert "What was last seen:" in render(view)

        def is_back() -> bool:
            with contextlib.suppress(ServerLost):
                view.look()
                return True
            return False

        wait_until(is_back, OPENING, "it is back")
        assert "What was last seen:" not in render(view)
        view.close()


def render(view: View) -> str:
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        console = Console(width=200, record=True, file=nowhere)
        console.print(view.render(200, 40))
    return console.export_text()


def test_top_looks_once_an_interval(server: ServerApart) -> None:
    looks: list[float] = []

    class Counted(View):
        def look(self) -> None:
            looks.append(time.monotonic())
            super().look()

    view = Counted("peak", server.registry, server.config)
    view.look()
    keys = iter(["", "x", "", "q"])  # each after its time

    def wait(seconds: float) -> str:
        assert 0 < seconds <= 1e-3
        return next(keys)

    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        watch(view, Console(file=nowhere, force_terminal=True, width=80, height=24), 1e-3, wait)
    view.close()
    assert list(keys) == []
    assert looks


# ---- drain and stop -------------------------------------------------------------------------------------------


def test_drain_and_stop(tmp_path: Path, write_script: Callable[..., Path]) -> None:
    flag = tmp_path / "enough"
    script = write_script(SLOW.format(flag=str(flag)), "slow.py")
    with unsupervised(f"{script}:Slow", tmp_path) as (config, endpoint), call("alone", config) as model:
        future = model.submit.log_density(np.zeros((3, 1)))
        with Operator(endpoint, config) as operator:
            wait_until(lambda: operator.statistics()["workers"][0]["running_seconds"], OPENING, "it has begun")
        result = ask(config, "drain", "alone")
        assert result.stdout == "alone takes nothing new; 1 request under way; end it by `demos-hpc stop alone`\n"
        assert ask(config, "health", "alone").exit_code == DRAINING
        environment = {**os.environ, "DEMOS_REGISTRY": config.registry, "DEMOS_KEY_FILE": config.key_file}
        with subprocess.Popen(
            [*DEMOS, "drain", "alone", "--wait"], env=environment, stdout=subprocess.PIPE, text=True
        ) as waiting:
            wait_until(lambda: count_operators(config, endpoint.id) >= 1, OPENING, "somebody waits")
            assert waiting.poll() is None
            flag.touch()
            out, _ = waiting.communicate(timeout=ENDING)
        assert (waiting.returncode, out) == (
            0, "alone takes nothing new; nothing is under way; end it by `demos-hpc stop alone`\n"
        )  # fmt: skip
        assert len(future.result()) == 3
        result = ask(config, "stop", "alone", "--wait")
        assert (result.exit_code, result.stdout) == (0, "alone has ended\n")
        wait_until(lambda: not Registry(config.registry_directory).list()[0], ENDING, "its entry is gone")
        assert ask(config, "health", "alone").exit_code == GONE


def count_operators(config: Config, id_: str) -> int:
    """Connections at the Unix socket of a server, but for that of its worker and of the client."""
    text = Path("/proc/net/unix").read_text(encoding="ascii")
    return sum(line.endswith(f"@demos-{id_}") for line in text.splitlines()) - 3


def test_stop_ends_the_supervisor_as_well(tmp_path: Path) -> None:
    with serving(GAUSSIAN, tmp_path, workers=1, name="peak", heartbeat=0.5) as server:
        result = ask(server.config, "stop", "peak", "--wait")
        assert result.exit_code == 0, result.output
        wait_until(lambda: server.process.poll() == 0 or "lost" in server.log, ENDING, "the supervisor has noticed")
        assert "lost its dispatcher" not in server.log
        assert server.registry.list()[0] == []


# ---- call and info --------------------------------------------------------------------------------------------


def test_call_goes_to_the_server_that_runs(server: ServerApart) -> None:
    words = ["sample", "--n", "5", "--seed", "3", "--json"]
    here = invoke("call", GAUSSIAN, *words)
    for name in ("peak", "gaussian"):
        there = ask(server.config, "call", name, *words)
        assert there.exit_code == 0, there.output
        assert read(there) == read(here)
        assert there.stderr == "peak (ready, 1 worker, load 0.0 s) of 1 server by unix\n"
    assert here.stderr == ""


def test_info_comes_from_the_server_that_runs(server: ServerApart) -> None:
    here = read(invoke("info", GAUSSIAN, "--json"))
    told = ask(server.config, "info", "peak", "--json")
    there = read(told)
    assert there.pop("server") == {"workers": 1, "revision": 1, "changed": {}}
    assert there == here
    assert "peak (ready, 1 worker" in told.stderr
    assert "revision: 1" in ask(server.config, "info", "peak").stdout


def test_info_tells_which_parameters_were_changed(tmp_path: Path) -> None:
    with unsupervised(GAUSSIAN, tmp_path) as (config, _):
        with call("alone", config) as model:
            model.set_params(mu=0.5)
        assert read(ask(config, "info", "alone", "--json"))["server"] == {
            "workers": 1, "revision": 2, "changed": {"mu": 0.5}
        }  # fmt: skip
        assert "mu: 0.5" in ask(config, "info", "alone").stdout
        answer = read(ask(config, "call", "alone", "log_density", "--x", "0", "--json"))
        assert answer["params"] == {"mu": 0.5, "sigma": 1}


@pytest.mark.parametrize("command", [["info"], ["call", "sample"]])
def test_a_name_that_is_neither_a_model_nor_a_server(command: list[str], server: ServerApart) -> None:
    text = fail(ask(server.config, command[0], "nobody", *command[1:]))
    assert "short name of a model that comes with demos-hpc: nu_atm" in text
    assert text.endswith("and no server that runs has this name (DEMOS_REGISTRY)")


def test_paths_are_never_servers(server: ServerApart) -> None:
    result = ask(server.config, "call", GAUSSIAN, "sample")
    assert (result.exit_code, result.stderr) == (0, "")


def test_workers_of_ones_own_are_preferred_where_they_are_asked_for(registry: Registry) -> None:
    for age in (0.0, 100.0):
        registry.publish(make("nu_atm", age=age))
        assert invoke("call", "nu_atm", "evaluate", "--workers", "0").stderr == ""


def test_a_bundled_model_is_here_where_its_server_is_not(registry: Registry) -> None:
    registry.publish(make("nu_atm", age=100.0))
    assert invoke("info", "nu_atm").stderr == ""  # long silent: as if it were not there
    registry.publish(make("nu_atm"))
    result = invoke("info", "nu_atm")
    assert result.exit_code == 0
    assert "does not answer" in result.stderr
    assert result.stderr.endswith("; nu_atm is computed in this process\n")
    registry.publish(make("peak"))
    assert "server 'peak' does not answer" in fail(invoke("info", "peak"))
    registry.publish(make("peak", state="draining", port=7))


# ---- logs and Prometheus --------------------------------------------------------------------------------------


def read_events(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="ascii").splitlines()]


def test_a_request_can_be_followed_from_client_to_worker(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    settings = {"log_level": "debug", "log_file": logs / "demos.log"}
    with serving(GAUSSIAN, tmp_path, workers=1, name="peak", heartbeat=0.5, **settings) as server:
        script = "import demos_hpc; m = demos_hpc.connect('peak'); m.sample(5000, seed=1); m.log_density([[0.0]])"
        subprocess.run([sys.executable, "-c", script], env=server.environment, check=True, timeout=OPENING)
        (client,) = (read_events(path) for path in logs.glob("demos-client-*.log"))
        dispatcher, worker = (read_events(logs / f"demos-{name}.log") for name in ("peak", "peak.0"))
    asked = [e for e in client if e["event"] == "request" and e["operation"] == "sample"]
    request = asked[0]["request"]
    came = next(e for e in dispatcher if e["event"] == "client came")
    assert request.partition(":")[0] == str(came["peer"])
    assert [e["event"] for e in client if e.get("request") == request] == ["request", "request done"]
    mine = [e for e in dispatcher if e.get("request") == request]
    assert [e["event"] for e in mine] == ["request", "request done"]
    assert (mine[0]["rows"], mine[0]["operation"], mine[0]["model"]) == (5000, "sample", "gaussian")
    given = [e for e in dispatcher if request in e.get("requests", [])]
    assert sum(e["rows"] for e in given) == 5000
    chunks = {e["chunk"] for e in given}
    assert {e["chunk"] for e in dispatcher if e["event"] == "chunk done"} >= chunks
    computed = [e for e in worker if e["event"] == "chunk" and e["chunk"] in chunks]
    assert sum(e["rows"] for e in computed) == 5000
    joined = next(e for e in worker if e["event"] == "joined")
    assert {e["worker"] for e in given} == {joined["worker"]}
    assert {e["role"] for e in client + dispatcher + worker} == {"client", "dispatcher", "worker"}


def test_a_server_writes_for_prometheus_while_it_runs(tmp_path: Path) -> None:
    pytest.importorskip("prometheus_client")
    path = tmp_path / "demos-hpc-peak.prom"
    with serving(GAUSSIAN, tmp_path, workers=1, name="peak", heartbeat=0.5, prometheus_file=tmp_path):
        wait_until(lambda: path.exists() and "worker_up" in path.read_text(encoding="utf-8"), OPENING, "it is written")
        before = path.stat().st_mtime_ns
        wait_until(lambda: path.stat().st_mtime_ns > before, OPENING, "it is written again")
    assert not path.exists()  # nobody shall take an old one for a server


def test_a_file_for_prometheus_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    with serving(
        GAUSSIAN, tmp_path, workers=1, name="peak", heartbeat=0.2, prometheus_file=tmp_path / "no" / "x.prom"
    ) as server:
        wait_until(lambda: "Prometheus learns nothing" in server.log, OPENING, "it is said")
        with server.connect() as model:
            assert len(model.log_density([[0.0]])) == 1
        beat = server.find()
        wait_until(lambda: server.find() != beat, OPENING, "a heartbeat later")
        assert server.log.count("Prometheus learns nothing") == 1


def test_warnings_of_a_server_stand_on_its_standard_error(server: ServerApart, tmp_path: Path) -> None:
    endpoint = server.find()
    assert endpoint is not None
    make_key_file(tmp_path / "key", find_user())
    with pytest.raises(demos_hpc.DemosError, match="does not let you in"):
        Operator(endpoint, server.config.changed(key_file=str(tmp_path / "key")))
    wait_until(lambda: "refused at the door" in server.log, OPENING, "it is said")
    assert " warning dispatcher peak[" in server.log
    assert "client came" not in server.log
