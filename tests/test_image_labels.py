"""Labels: what an image says of its model, and the data that it needs."""

from __future__ import annotations

import pytest

from demos_hpc.errors import InvalidInput
from demos_hpc.image_labels import check_fit, check_launcher, find_data_files, format_labels, make_labels
from demos_hpc.spec import Dataset, ModelSpec

SPEC = ModelSpec(
    name="peak",
    version="1.2.3",
    license="CC0-1.0",
    authors=("A", "B"),
    description="A peak\nof a width",
    datasets=(Dataset("a", "/data/a.h5:/x"), Dataset("b", "/data/a.h5:/y"), Dataset("c", "/opt/model/c.h5:/z")),
    resources={"gpus": 1},
    operations=("log_density",),
)


def test_labels() -> None:
    labels = make_labels(SPEC, "/opt/model/m.py:Peak", "restricted", "abc")
    assert labels["org.opencontainers.image.authors"] == "A, B"
    assert labels["org.demos-hpc.model.uuid"] == SPEC.uuid
    assert labels["org.demos-hpc.license-class"] == "restricted"
    assert (labels["org.opencontainers.image.revision"], labels["org.opencontainers.image.source"]) == (
        "abc",
        "not given",
    )
    assert "org.opencontainers.image.source" not in make_labels(SPEC, "nu_atm", "restricted", "abc")
    lines = format_labels(labels).splitlines()
    assert len(lines) == len(labels)
    assert "org.opencontainers.image.description A peak of a width" in lines


def test_data_outside_of_the_image() -> None:
    assert find_data_files(make_labels(SPEC, "m", "private", "abc")) == ["/data/a.h5"]
    assert find_data_files({}) == []
    with pytest.raises(InvalidInput, match="build the image again"):
        find_data_files({"org.demos-hpc.model.data": "[1]"})


def test_a_launcher_that_does_not_fit() -> None:
    labels = {"org.demos-hpc.mpi-abi": "mpich"}
    with pytest.raises(InvalidInput, match=r"a launcher that does not fit the MPI in x\.sif: .*--mpi=pmi2"):
        check_launcher({"PMIX_RANK": "0"}, 3, lambda: labels, "x.sif")
    check_launcher({"PMIX_RANK": "0"}, 1, lambda: labels, "x.sif")  # one rank needs no launcher
    check_launcher({"PMIX_RANK": "0"}, 3, dict, "x.sif")
    check_launcher({"PMIX_RANK": "0", "PMI_RANK": "0"}, 3, lambda: labels, "x.sif")
    check_launcher({"PMI_RANK": "0"}, 3, lambda: pytest.fail("not looked into"), "x.sif")
    check_fit("mpich", labels, "x.sif")
    with pytest.raises(InvalidInput, match="does not fit"):
        check_fit("openmpi", labels, "x.sif")


def test_license_classes() -> None:
    with pytest.raises(InvalidInput, match="shareable, restricted, private"):
        make_labels(SPEC, "m", "secret", "abc")
