"""What users have used: counted so that it adds up, kept in records that outlive a server, and summed up again."""

from __future__ import annotations

import json
import os
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compiling import EXAMPLES, Workshop
from hypothesis import given
from hypothesis import strategies as st
from inside import Hall
from languages import PROGRAMS
from service import Peer, Service, make_request
from serving import serving
from typer.testing import CliRunner, Result

from demos_hpc import server as server_module
from demos_hpc.cli import app
from demos_hpc.cli.confining import _bind_places
from demos_hpc.config import Config
from demos_hpc.errors import BadFrame, InvalidInput
from demos_hpc.messages import Offer, Operation
from demos_hpc.testing import FakeClock, Gaussian
from demos_hpc.usage import (
    COUNTS,
    MOST_PAIRS,
    OTHERS,
    Book,
    Usage,
    add_up,
    find_records,
    format_moment,
    read_moment,
    read_records,
    subtract,
)

X = np.random.default_rng(3).normal(size=(64, 1))
POINT = np.array([0.5, 2.0])
NOON = 1772366400.0
FACTS = {"server": "nu", "id": "5c0e", "owner": "ada", "host": "node1", "job": "41"}


def spend(usage: Usage, user: str, model: str, core_seconds: float, rows: int = 10) -> None:
    account = usage.find(user, model)
    account.requests += 1
    account.rows += rows
    account.core_seconds += core_seconds


def find(described: dict[str, Any], user: str, model: str) -> dict[str, Any]:
    (found,) = (one for one in described["used"] if (one["user"], one["model"]) == (user, model))
    return dict(found)


# ---- the books -------------------------------------------------------------------------------------------------


def test_workers_are_there_from_when_they_come_until_they_go() -> None:
    usage = Usage()
    usage.come(1, "nu", 4, 100.0)
    usage.come(2, "nu", 1, 110.0)
    usage.come(3, "wave", 2, 110.0)
    usage.go(1, 120.0)
    usage.go(1, 130.0)
    usage.go(9, 130.0)
    there = {one["model"]: one["core_seconds"] for one in usage.describe(140.0)["workers"]}
    assert there == {"nu": 4 * 20.0 + 30.0, "wave": 2 * 30.0}


def test_users_and_models_without_end_do_not_fill_memory() -> None:
    usage = Usage()
    for nth in range(MOST_PAIRS + 100):
        spend(usage, f"user{nth}", "nu", 1.0)
    described = usage.describe(0.0)
    assert len(described["used"]) == MOST_PAIRS + 1
    assert find(described, OTHERS, "nu")["core_seconds"] == 100.0


class House:
    """A service whose clock stands still, with workers that take a second for each chunk, by what they say."""

    def __init__(self, *models: Gaussian, threads: int = 1) -> None:
        self.clock = FakeClock()
        self.service = Service(*models, workers=len(models), config=Config(threads=threads), clock=self.clock)
        self.service.turn()
        self.handles = {one.spec.name: one.handle for one in self.service.dispatcher.catalog.models.values()}

    def ask(self, peer: Peer, model: str, operation: Operation = Operation.LOG_DENSITY) -> None:
        """One request, each of whose chunks is answered after a second at most."""
        arrays = [POINT] if operation is Operation.SAMPLE else [X, POINT]
        peer.send(make_request(operation, arrays, n_rows=len(X), model=self.handles[model]))
        self.service.dispatcher.step()
        self.clock.advance(1.0)
        for _ in range(20):
            self.service.turn()
        assert peer.receive()

    def describe(self) -> dict[str, Any]:
        return self.service.dispatcher.accounts.metrics.describe(self.clock())


def test_what_users_have_used_is_what_workers_have_computed() -> None:
    house = House(Gaussian(), Gaussian(name="wave"), threads=3)
    ada, bob = house.service.add_peer("ada"), house.service.add_peer("bob")
    for peer, model in ((ada, "gaussian"), (ada, "wave"), (bob, "wave"), (bob, "wave")):
        house.ask(peer, model)
    house.ask(bob, "gaussian", Operation.SAMPLE)
    told = house.describe()
    used = told["usage"]["used"]
    counted = {(one["user"], one["model"]): (one["requests"], one["rows"], one["draws"]) for one in used}
    assert counted == {
        ("ada", "gaussian"): (1, 64, 0),
        ("ada", "wave"): (1, 64, 0),
        ("bob", "wave"): (2, 128, 0),
        ("bob", "gaussian"): (1, 64, 64),
    }
    for model in house.handles:
        busy = sum(worker["busy_seconds"] for worker in told["workers"] if worker["model"] == model)
        assert busy > 0
        assert sum(one["core_seconds"] for one in used if one["model"] == model) == pytest.approx(3 * busy)
    there = {one["model"]: one["core_seconds"] for one in told["usage"]["workers"]}
    assert there == {"gaussian": pytest.approx(15.0), "wave": pytest.approx(15.0)}
    users = {user["user"]: user["busy_seconds"] for user in told["users"]}
    for name, seconds in users.items():
        assert 3 * seconds == pytest.approx(sum(one["core_seconds"] for one in used if one["user"] == name))


def test_threads_that_a_model_has_of_its_own_are_cores() -> None:
    model = Gaussian()
    model.demos_threads = 5  # type: ignore[attr-defined]
    house = House(model, threads=2)
    house.clock.advance(1.0)
    assert house.describe()["usage"]["workers"] == [{"model": "gaussian", "core_seconds": 5.0}]


def test_a_worker_that_is_lost_was_there() -> None:
    house = House(Gaussian())
    house.clock.advance(5.0)
    (link,) = [link for link, peer in house.service.dispatcher.peers.items() if peer.role == "worker"]
    house.service.dispatcher.lose(link)
    house.clock.advance(5.0)
    assert house.describe()["usage"]["workers"] == [{"model": "gaussian", "core_seconds": 5.0}]


@pytest.mark.parametrize("threads", [0, -1, 10**30])
def test_a_worker_with_no_such_threads_is_refused(threads: int) -> None:
    with pytest.raises(BadFrame, match="threads"):
        Offer.from_dict({"worker": "w", "fingerprint": "", "threads": threads})


# ---- records ---------------------------------------------------------------------------------------------------


def test_records_have_what_has_come_since_the_one_before(tmp_path: Path) -> None:
    usage = Usage()
    usage.come(1, "nu", 2, 100.0)
    book = Book(tmp_path / "usage", FACTS, NOON)
    spend(usage, "bob", "nu", 12.5)
    book.write((NOON + 300, usage.describe(400.0)))
    book.write((NOON + 600, usage.describe(700.0)))
    spend(usage, "bob", "nu", 1.5)
    spend(usage, "eve", "nu", 1.0)
    book.write((NOON + 601, usage.describe(701.0)))
    assert book.path == tmp_path / "usage" / "nu-5c0e.jsonl"
    assert book.path.stat().st_mode & 0o777 == 0o600
    first, second, third = (record for record in read_records(book.path) if isinstance(record, dict))
    assert first == {
        "from": "2026-03-01T12:00:00Z",
        "until": "2026-03-01T12:05:00Z",
        **FACTS,
        "used": [{"user": "bob", "model": "nu", "requests": 1, "rows": 10, "draws": 0, "core_seconds": 12.5}],
        "workers": [{"model": "nu", "core_seconds": 600.0}],
    }
    assert (second["from"], second["used"]) == (first["until"], [])
    assert [one["user"] for one in third["used"]] == ["bob", "eve"]
    assert add_up([first, second, third]) == add_up([usage.describe(701.0)])


AMOUNTS = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("mn"), st.integers(0, 9), st.booleans()))


@given(AMOUNTS)
def test_however_it_is_cut_into_records_the_sum_is_the_same(amounts: list[tuple[str, str, int, bool]]) -> None:
    usage, records, before = Usage(), [], Usage().describe(0.0)
    usage.come(1, "m", 2, 0.0)
    now = 0.0
    for user, model, seconds, is_recorded in amounts:
        now += 1.0
        spend(usage, user, model, float(seconds), seconds)
        if is_recorded:
            described = usage.describe(now)
            records.append(subtract(described, before))
            before = described
    records.append(subtract(usage.describe(now), before))
    assert add_up(reversed(records)) == add_up([usage.describe(now)])


def test_what_could_not_be_written_comes_with_the_next_record(tmp_path: Path) -> None:
    usage, book = Usage(), Book(tmp_path, FACTS, NOON)
    spend(usage, "bob", "nu", 1.0)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40, hard))
    try:
        with pytest.raises(OSError, match="took 40 of"):
            book.write((NOON + 300, usage.describe(300.0)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    spend(usage, "bob", "nu", 1.0)
    book.write((NOON + 600, usage.describe(600.0)))
    torn, record = read_records(book.path)
    assert torn == f"line 1 of {book.path} is no record of usage, and does not count"
    assert isinstance(record, dict)
    assert (record["from"], record["used"][0]["core_seconds"]) == (format_moment(NOON), 2.0)


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InvalidInput, match=r"file/usage \(DEMOS_USAGE_DIRECTORY\): Not a directory"):
        Book(tmp_path / "file" / "usage", FACTS, NOON)


GOOD = {
    **FACTS,
    "from": "2026-03-01T12:00:00Z",
    "until": "2026-03-01T12:05:00Z",
    "used": [{"user": "bob", "model": "nu", **dict.fromkeys(COUNTS, 1)}],
    "workers": [{"model": "nu", "core_seconds": 2.0}],
}


@pytest.mark.parametrize(
    "bad",
    [
        "[]",
        "{}",
        "null",
        "[" * 100_000,
        json.dumps(GOOD | {"until": "yesterday"}),
        json.dumps(GOOD | {"server": 7}),
        json.dumps(GOOD | {"used": [{"user": "bob", "model": "nu"}]}),
        json.dumps(GOOD | {"workers": [{"model": "nu", "core_seconds": -1.0}]}),
        json.dumps(GOOD | {"workers": [{"model": "nu", "core_seconds": float("nan")}]}),
        json.dumps(GOOD | {"workers": [{"model": "nu", "core_seconds": "2"}]}),
        json.dumps(GOOD | {"workers": [{"model": "nu", "core_seconds": 10**400}]}),
        json.dumps(GOOD | {"server": "\x1b[2J"}),
    ],
)
def test_what_is_no_record_does_not_count(tmp_path: Path, bad: str) -> None:
    path = tmp_path / "nu.jsonl"
    path.write_text(f"{json.dumps(GOOD)}\n{bad}\n{json.dumps(GOOD)}\n", encoding="utf-8")
    first, said, last = read_records(path)
    assert first == last == GOOD
    assert isinstance(said, str)
    assert "line 2" in said


def test_each_file_counts_once(tmp_path: Path) -> None:
    for name in ("a.jsonl", "b.jsonl", "notes.txt"):
        (tmp_path / name).touch()
    assert find_records([tmp_path / "b.jsonl", tmp_path, tmp_path / "gone"]) == [
        tmp_path / "b.jsonl", tmp_path / "a.jsonl", tmp_path / "gone"
    ]  # fmt: skip
    with pytest.raises(InvalidInput, match="gone cannot be read: No such file"):
        list(read_records(tmp_path / "gone"))


def test_files_of_others_are_theirs_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "nu.jsonl"
    path.write_text(json.dumps(GOOD) + "\n", encoding="utf-8")
    monkeypatch.setattr("os.geteuid", lambda: 12345)  # who reads what another one has written
    monkeypatch.setattr("os.fstat", lambda number: os.stat_result((0o100644, 0, 0, 1, 54321, *[0] * 5)))
    for name, counts in (("mallory", False), (GOOD["owner"], True)):
        monkeypatch.setattr("demos_hpc.usage.find_name", lambda number, name=name: name)
        (record,) = read_records(path)
        assert isinstance(record, dict) == counts


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jsonl")
    (tmp_path / "folder.jsonl").mkdir()
    (tmp_path / "zero.jsonl").symlink_to("/dev/zero")
    (tmp_path / "nu.jsonl").write_text(json.dumps(GOOD) + "\n", encoding="utf-8")
    result = CliRunner().invoke(app, ["usage", "--from", str(tmp_path), "--json"])
    assert result.exit_code == 0
    assert json.loads(result.stdout)["servers"] == [GOOD["server"]]
    assert "folder.jsonl is no file of records; it does not count, nor do 2 further ones" in result.stderr
    for name in ("pipe", "zero"):
        assert CliRunner().invoke(app, ["usage", "--from", str(tmp_path / f"{name}.jsonl")]).exit_code == 1


def test_a_line_without_end_ends_the_file(tmp_path: Path) -> None:
    path = tmp_path / "nu.jsonl"
    path.write_text(json.dumps(GOOD) + "\n", encoding="utf-8")
    os.truncate(path, 1 << 40)  # zeros that take no room
    record, said = read_records(path)
    assert record == GOOD
    assert said == f"what follows from line 2 of {path} on is too long for a record, and does not count"


def test_names_of_files_do_not_steer_the_terminal(tmp_path: Path) -> None:
    (tmp_path / "\x1b[2J.jsonl").write_text("{}\n" * 3, encoding="utf-8")
    (tmp_path / "\x1b[3J.jsonl").mkdir()
    said = CliRunner().invoke(app, ["usage", "--from", str(tmp_path)]).stderr
    assert "\x1b" not in said
    assert "?[2J.jsonl is no record of usage, and does not count, nor do 2 further ones" in said
    assert "?[3J.jsonl is no file of records" in said


def test_a_directory_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(InvalidInput, match="cannot be read: Permission denied"):
        find_records([tmp_path])


def test_what_runs_in_an_image_is_told_of_no_directory_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("DEMOS_REGISTRY", str(tmp_path / "registry"))
    monkeypatch.setenv("DEMOS_USAGE_DIRECTORY", str(tmp_path / "file" / "usage"))
    with pytest.raises(InvalidInput, match=r"file/usage \(DEMOS_USAGE_DIRECTORY\): Not a directory; make it"):
        list(_bind_places(Config.load()))


def test_times_are_local_unless_they_say_otherwise() -> None:
    assert format_moment(read_moment("2026-03-01T12:00:00Z").timestamp()) == "2026-03-01T12:00:00Z"
    assert read_moment("2026-03-01").astimezone().hour == 0
    with pytest.raises(InvalidInput, match="'soon': write it as"):
        read_moment("soon")


# ---- a server, and the command ---------------------------------------------------------------------------------


def invoke(hall: Hall, *words: str) -> Result:
    environment = {"DEMOS_REGISTRY": str(hall.registry), "DEMOS_KEY_FILE": str(hall.key_file), "COLUMNS": "140"}
    return CliRunner().invoke(app, ["usage", *words], prog_name="demos-hpc", env=environment)


def read(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.stderr
    told: dict[str, Any] = json.loads(result.stdout)
    return told


def test_a_server_tells_while_it_runs_and_leaves_records(
    hall: Hall, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "RECORD_SECONDS", 0.01)
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    directory = tmp_path / "usage"
    server = hall.open(usage_directory=str(directory), workers=2)
    with server.connect() as model:
        for _ in range(3):
            model.log_density(X, POINT)
        model.sample(100, POINT, seed=1)
    live = read(invoke(hall, "here", "--json"))
    (used,) = live["used"]
    assert (used["model"], used["requests"], used["rows"], used["draws"]) == ("gaussian", 4, 292, 100)
    assert 0 < used["core_seconds"] < live["workers"][0]["core_seconds"]
    assert live["slurm"] is None
    shown = invoke(hall, "here").stdout
    assert "core-seconds" in shown
    assert "workers were there for" in shown

    server.stop()
    after = read(invoke(hall, "--from", str(directory), "--json"))
    assert after["servers"] == ["here"]
    assert after["used"] == [{**used, "core_seconds": pytest.approx(used["core_seconds"])}]
    assert after["workers"][0]["core_seconds"] > live["workers"][0]["core_seconds"]
    assert len(list(directory.iterdir())) == 1


@pytest.mark.parametrize("is_program", [False, True])
def test_workers_say_what_threads_they_have(is_program: bool, workshop: Workshop, tmp_path: Path) -> None:
    words = ["demos_hpc.testing:Gaussian"]
    if is_program:
        words = ["--exec", str(workshop.link(PROGRAMS / "server.c", EXAMPLES / "gaussian.c")), "{}"]
    with serving(words, tmp_path, workers=1, threads=3) as server, server.operate() as operator:
        told = operator.look()
    (there,), (worker,) = told["usage"]["workers"], told["workers"]
    assert there["core_seconds"] == pytest.approx(3 * worker["up_seconds"], rel=0.01)


def test_a_server_that_cannot_keep_records_does_not_start(hall: Hall, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InvalidInput, match="DEMOS_USAGE_DIRECTORY"):
        hall.open(usage_directory=str(tmp_path / "file"), workers=0)


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """Records of two servers, an hour apart."""
    for name, owner, hour, seconds in (("nu", "ada", 12, 3600.0), ("wave", "bob", 13, 1800.0)):
        used = [{"user": "eve", "model": name, **dict.fromkeys(COUNTS, 1), "core_seconds": seconds}]
        moments = {"from": f"2026-03-01T{hour}:00:00Z", "until": f"2026-03-01T{hour}:05:00Z"}
        there = [{"model": name, "core_seconds": 7200.0}]
        record = {**FACTS, **moments, "server": name, "owner": owner, "job": "", "used": used, "workers": there}
        (tmp_path / f"{name}-1.jsonl").write_text(json.dumps(record) + "\n", encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize(
    ("words", "models"),
    [
        ([], ["nu", "wave"]),
        (["nu"], ["nu"]),
        (["--since", "2026-03-01T12:30:00Z"], ["wave"]),
        (["--until", "2026-03-01T12:30:00Z"], ["nu"]),
        (["--since", "2026-03-01T12:05:00Z", "--until", "2026-03-01T13:05:00Z"], ["nu"]),
        (["--since", "2027-01-01"], []),
    ],
)
def test_records_are_chosen_by_server_and_time(hall: Hall, kept: Path, words: list[str], models: list[str]) -> None:
    told = read(invoke(hall, *words, "--from", str(kept), "--json"))
    assert [one["model"] for one in told["used"]] == told["servers"] == models


def test_the_table_has_sums_and_shares(hall: Hall, kept: Path) -> None:
    (kept / "broken-1.jsonl").write_text("{}\n", encoding="utf-8")
    result = invoke(hall, "--from", str(kept))
    assert "line 1 of" in result.stderr
    lines = [" ".join(line.replace("│", " ").split()) for line in result.stdout.splitlines()]
    assert "eve nu 1 1 1 1.00 67 %" in lines
    assert "eve wave 1 1 1 0.50 33 %" in lines
    assert "all 2 2 2 1.50 100 %" in lines
    assert "workers were there for 4.00 core-hours, 38 % of them at work" in lines


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ([], "usage takes the NAME of a server that runs, or --from"),
        (["nu", "--since", "2026-03-01"], "--since and --until are for --from"),
        (["--from", "nowhere"], "nowhere cannot be read: No such file"),
        (["--from", ".", "--since", "soon"], "time 'soon'"),
        (["nobody"], "nobody"),
    ],
)
def test_what_cannot_be_answered_is_refused(hall: Hall, words: list[str], why: str) -> None:
    result = invoke(hall, *words)
    assert result.exit_code == 1
    assert why in " ".join(result.stderr.split())
