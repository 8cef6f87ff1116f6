"""The command line that runs something in an image."""

from __future__ import annotations

from pathlib import Path

import pytest

from demos_hpc.errors import InvalidInput
from demos_hpc.image_run import Bind, Confinement, bind_data, make_exec, read_bind


def test_what_a_command_sees_and_is_told() -> None:
    confinement = Confinement(
        "/i/x.sif", "sha256:ab", (Bind("/data/a.h5"), Bind("/reg", "/r", is_writable=True)), userns=True, gpus="nv",
        variables={"DEMOS_RUN_DIR": "/dev/shm/r"}, directory="/w",
    )  # fmt: skip
    assert make_exec(confinement, ["demos-hpc", "serve", "nu_atm"]) == [
        "apptainer", "--quiet", "exec", "--contain", "--bind", "/dev", "--userns", "--nv",
        "--bind", "/data/a.h5:/data/a.h5:ro", "--bind", "/reg:/r:rw",
        "--env", "UCX_POSIX_USE_PROC_LINK=n", "--env", "MPIR_CVAR_CH4_CMA_ENABLE=0",
        "--env", "PYTHONPATH=", "--env", "PYTHONHOME=", "--env", "PYTHONSTARTUP=", "--env", "VIRTUAL_ENV=",
        "--env", "DEMOS_IMAGE_DIGEST=sha256:ab", "--env", "DEMOS_RUN_DIR=/dev/shm/r",
        "--pwd", "/w", "/i/x.sif", "demos-hpc", "serve", "nu_atm",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("confinement", "command", "told"),
    [
        (Confinement("x.sif"), [], "give a command"),
        (Confinement("x.sif", gpus="cuda"), ["a"], "nv .* and rocm"),
        (Confinement("x.sif", binds=(Bind("/a:b"),)), ["a"], "no ':'"),
        (Confinement("x.sif", binds=(Bind("/a,b"),)), ["a"], "no ','"),
        (Confinement("x.sif", variables={"A": "1,2"}), ["a"], "splits it at commas"),
    ],
)
def test_what_cannot_be_told_to_apptainer(confinement: Confinement, command: list[str], told: str) -> None:
    with pytest.raises(InvalidInput, match=f"(?i){told}"):
        make_exec(confinement, command)


def test_data_that_is_missing(tmp_path: Path) -> None:
    there = tmp_path / "a.h5"
    there.touch()
    assert bind_data([str(there), str(there)], of="x.sif") == (Bind(str(there)),)
    with pytest.raises(InvalidInput, match=r"x\.sif declares data in /none/b\.h5.*--data HERE:/none/b\.h5"):
        bind_data([str(there), "/none/b.h5"], of="x.sif")


def test_binds_in_words(tmp_path: Path) -> None:
    assert str(read_bind(f"{tmp_path}:/data")) == f"{tmp_path}:/data:ro"
    assert str(read_bind(str(tmp_path), is_writable=True)) == f"{tmp_path}:{tmp_path}:rw"
    with pytest.raises(InvalidInput, match="absolute"):
        read_bind(f"{tmp_path}:data")
    with pytest.raises(InvalidInput, match="there is no"):
        read_bind("/none/at/all")
