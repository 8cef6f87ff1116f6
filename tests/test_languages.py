"""Clients in Python, C, C++ and Fortran, and servers in each: in one launch, over TCP, and when a model goes wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compiling import Mold, Workshop, run
from inside import Hall
from languages import ERROR, EXITS, LANGUAGES, LEAKS, NAN, SEGFAULTS, SLEEPS, School, collect, read, read_faults
from launching import Launched
from serving import ENDING, serving

import demos_hpc
from demos_hpc.errors import Status

SERVERS = (*LANGUAGES, "plug-in")


@pytest.fixture
def school(workshop: Workshop, mold: Mold, tmp_path: Path) -> School:
    return School(workshop, mold, tmp_path)


def assert_agree(language: str, answers: Mapping[str, Mapping[str, Any]], school: School) -> None:
    """All clients have the same bits: those of the model in this process, whose twin differs in the last digit."""
    with demos_hpc.local(school.find_model("python" if language == "python" else "plug-in", "gaussian")) as model:
        wanted = collect(model)
    with demos_hpc.local(school.find_model("python", "gaussian")) as model:
        twin = collect(model, wanted["sample"][:, None])
        np.testing.assert_allclose(wanted["sample"], collect(model)["sample"], rtol=0, atol=1e-13)
    for name, numbers in wanted.items():
        np.testing.assert_allclose(numbers, twin[name], rtol=1e-15, atol=1e-15, err_msg=name)
        for client, got in answers.items():
            np.testing.assert_array_equal(got[name], numbers, err_msg=f"{name} of {language} in {client}")


# ---- a Gaussian -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("language", SERVERS)
def test_all_clients_agree_in_one_launch(
    language: str, school: School, launch: Callable[..., Launched], tmp_path: Path
) -> None:
    files = {client: tmp_path / client for client in LANGUAGES}
    done = launch(*school.serve(language, "gaussian"), *[school.call(client, file) for client, file in files.items()])
    assert done.code == 0, done.text
    assert done.err == ""
    assert_agree(language, {client: read(file) for client, file in files.items()}, school)


@pytest.mark.parametrize("language", SERVERS)
def test_all_clients_agree_over_tcp(language: str, school: School, hall: Hall, tmp_path: Path) -> None:
    files = {client: tmp_path / client for client in LANGUAGES}
    model = "" if language in ("c", "cpp", "fortran") else school.find_model(language, "gaussian")
    server = hall.open(model, workers=0)
    join = [sys.executable, "-m", "demos_hpc", "worker", "--join", server.name, "--transport", "tcp"]
    words = [] if model else school.name(language, "gaussian")
    settings = server.config
    names = ("registry", "key_file", "authentication")
    environment = {**os.environ, **{f"DEMOS_{name.upper()}": str(getattr(settings, name)) for name in names}}
    workers = [subprocess.Popen([*join, *words], env=environment, cwd=tmp_path) for _ in range(2)]
    try:
        server.wait_for_entry(lambda entry: entry.workers == 2, "two workers")
        with server.operate() as operator:
            assert [worker["transport"] for worker in operator.list_workers()] == ["tcp", "tcp"]
        for client, file in files.items():
            run(school.call_server(client, server.name, file), env=environment, cwd=tmp_path)
        server.stop()
        assert [worker.wait(ENDING) for worker in workers] == [0, 0]
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    assert_agree(language, {client: read(file) for client, file in files.items()}, school)


# ---- a model that goes wrong ----------------------------------------------------------------------------------------

#: Status and value where the program goes on.
HARMLESS = {
    ERROR: [Status.MODEL_FAILED, 0],
    NAN: [Status.OK, np.nan],
    LEAKS: [Status.OK, -24.5 - 0.5 * np.log(2 * np.pi)],
}


def assert_faults(file: Path, wanted: list[list[float]]) -> None:
    np.testing.assert_allclose(read_faults(file), wanted, rtol=1e-15)


@pytest.mark.parametrize("language", SERVERS)
def test_all_clients_are_told_in_one_launch(
    language: str, school: School, launch: Callable[..., Launched], tmp_path: Path
) -> None:
    files = {client: tmp_path / client for client in LANGUAGES}
    calls = [school.call(client, file, *HARMLESS) for client, file in files.items()]
    done = launch(*school.serve(language, "failing"), *calls)
    assert done.code == 0, done.text
    for file in files.values():
        assert_faults(file, list(HARMLESS.values()))


@pytest.mark.parametrize("language", LANGUAGES[1:])
def test_a_crash_in_a_launch_says_how_to_avoid_that(
    language: str, school: School, launch: Callable[..., Launched], tmp_path: Path
) -> None:
    """Whatever handlers the language's own library has."""
    launched = launch(*school.serve(language, "failing", 1), school.call("c", tmp_path / "c", SEGFAULTS))
    assert launched.code != 0
    assert "the code of the model has crashed, and MPI ends the whole launch" in launched.err, launched.text


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_model_that_ends_its_process_costs_a_worker(language: str, school: School, tmp_path: Path) -> None:
    clients = dict(zip((SLEEPS, SEGFAULTS, EXITS), ("c", "cpp", "fortran"), strict=True))
    words = school.name(language, "failing")
    with serving(words, tmp_path, workers=2, chunk_timeout=0.5) as apart:

        def ask(client: str, *numbers: str) -> None:
            command = school.call_server(client, apart.name, tmp_path / client, *numbers)
            run(command, env=apart.environment, cwd=tmp_path)

        for fault, client in clients.items():
            ask(client, LEAKS, fault, LEAKS)
            lost = [Status.MODEL_CRASHED, 0]
            assert_faults(tmp_path / client, [HARMLESS[LEAKS], lost, HARMLESS[LEAKS]])
        for client in LANGUAGES:
            ask(client, *HARMLESS)
            assert_faults(tmp_path / client, list(HARMLESS.values()))
