"""What models need, and the nodes of a job that give it to them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demos_hpc.cluster import check_licenses, read_licenses
from demos_hpc.errors import InvalidInput
from demos_hpc.needs import Needs, Wanted, arrange, read_needs, spread
from demos_hpc.slurm_plan import DISPATCHER_MB, Wishes

COMMON = Wishes(minutes=90, account="t2k", extra=("--constraint=a100",))


def test_needs_are_read_from_resources() -> None:
    said = {"memory": "2 GB", "threads": 4, "gpus": 1, "licenses": ["geant4"], "note": "bring a coat"}
    assert read_needs(said, "model m") == Needs(2048, 4, 1, ("geant4",))
    assert read_needs({"memory_mb": 700}, "model m") == Needs(700)
    assert read_needs({}, "model m") == Needs()


@pytest.mark.parametrize(
    "said",
    [
        {"memory": "much"}, {"memory_mb": "700"}, {"memory_mb": -1}, {"threads": 0}, {"gpus": True}, {"gpus": 1.0},
        {"licenses": "geant4"}, {"licenses": [1]},
    ],
    ids=str,
)  # fmt: skip
def test_what_is_no_need_is_refused_by_its_name(said: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match=next(iter(said)).partition("_")[0]):
        read_needs(said, "model m")


def test_models_that_want_the_same_nodes_share_them() -> None:
    (part,) = arrange(
        [Wanted("a", 3, Needs(100, 2), nodes=2), Wanted("b", 2, Needs(500, licenses=("geant4",)), nodes=2)], COMMON
    )
    assert [group.workers for group in part.groups] == [(1, 2), (1, 1)]
    assert part.wishes == Wishes(
        nodes=2,
        cpus=2 * 2 + 1,
        memory_mb=2 * 100 + 500 + DISPATCHER_MB,
        minutes=90,
        account="t2k",
        licenses=("geant4",),
        extra=COMMON.extra,
    )


def test_each_model_takes_its_licenses() -> None:
    models = [Wanted("a", 1, Needs(licenses=("geant4", "idl"))), Wanted("b", 1, Needs(licenses=("geant4:2",)))]
    assert arrange(models, COMMON)[0].wishes.licenses == ("geant4:3", "idl")


def test_models_that_want_other_nodes_have_their_own() -> None:
    cpu, gpu = arrange(
        [Wanted("a", 4, Needs(100)), Wanted("b", 1, Needs(gpus=1), partition="gpu"), Wanted("c", 2, Needs(100))], COMMON
    )
    assert [group.model for group in cpu.groups] == ["a", "c"]
    assert (cpu.wishes.cpus, cpu.wishes.memory_mb, cpu.wishes.gpus) == (4 + 2 + 1, 600 + DISPATCHER_MB, 0)
    assert [group.model for group in gpu.groups] == ["b"]
    assert (gpu.wishes.cpus, gpu.wishes.memory_mb, gpu.wishes.gpus) == (1, 0, 1)
    assert gpu.wishes.partition == "gpu"
    assert gpu.wishes.minutes == 90


WANTED = st.builds(
    Wanted,
    st.sampled_from("abc"),
    st.integers(4, 9),
    st.builds(Needs, st.integers(1, 9), st.integers(1, 4), st.integers(0, 1)),
    nodes=st.integers(1, 4),
)


@given(st.lists(WANTED, min_size=1, max_size=6))
def test_every_node_has_what_its_workers_take(wanted: list[Wanted]) -> None:
    parts = arrange(wanted, COMMON)
    groups = [group for part in parts for group in part.groups]
    assert sum(sum(group.workers) for group in groups) == sum(each.workers for each in wanted)
    assert parts[0].groups[0].model == wanted[0].model
    for part in parts:
        assert all(len(group.workers) == part.wishes.nodes for group in part.groups)
        for node in range(part.wishes.nodes):
            is_first = part is parts[0] and node == 0
            assert part.wishes.cpus >= sum(g.workers[node] * g.threads for g in part.groups) + is_first
            memory = sum(g.workers[node] * g.worker_mb for g in part.groups)
            assert part.wishes.memory_mb >= memory + is_first * DISPATCHER_MB
    wanted_of_nodes = {(each.nodes, each.partition, each.needs.gpus) for each in wanted}
    assert len(parts) == len(wanted_of_nodes)


def test_what_is_given_once_is_for_all() -> None:
    assert spread([], 2, 1, "--nodes") == [1, 1]
    assert spread([3], 2, 1, "--nodes") == [3, 3]
    assert spread([3, 4], 2, 1, "--nodes") == [3, 4]
    with pytest.raises(InvalidInput, match="--nodes is given 3 times for 2 models"):
        spread([1, 2, 3], 2, 1, "--nodes")


def test_licenses_are_those_that_there_are() -> None:
    said = (
        "LicenseName=geant4 Total=4 Used=1 Free=3 Reserved=0 Remote=no\n"
        "LicenseName=idl@flex Total=1 Used=1 Free=0 Reserved=0 Remote=yes\n"
    )
    there = read_licenses(said)
    assert there == {"geant4": 4, "idl@flex": 1}
    assert read_licenses("No licenses configured in Slurm.\n") == {}
    check_licenses(["geant4:4", "idl@flex"], there)
    with pytest.raises(InvalidInput, match="takes license 'matlab', and there are geant4, idl@flex"):
        check_licenses(["matlab"], there)
    with pytest.raises(InvalidInput, match="takes license 'matlab', and Slurm has none here"):
        check_licenses(["matlab"], {})
    with pytest.raises(InvalidInput, match="takes 5 of license 'geant4', and there are 4"):
        check_licenses(["geant4:5"], there)
