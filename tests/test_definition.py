"""Definition files: their variables, and that those of the repository say the same as their twin for Docker."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from compiling import ROOT as SOURCE

from demos_hpc.definition import choose_arguments, find_variables, split_origin
from demos_hpc.errors import InvalidInput

FOLDER = SOURCE / "apptainer"
DEFINITIONS = sorted(FOLDER.glob("*.def"))
TEXT = """# {{ IN_A_COMMENT }}
Bootstrap: {{ BOOTSTRAP }}
From: {{FROM}}
%arguments
    PYTHON=3.11
%post
    echo {{ PYTHON }} {{ FROM }}
"""


def test_variables() -> None:
    assert find_variables(TEXT) == ("BOOTSTRAP", "FROM")
    chosen = choose_arguments(TEXT, {"BOOTSTRAP": "docker", "PYTHON": "3.12"}, offered={"FROM": "debian", "OTHER": "1"})
    assert chosen == {"BOOTSTRAP": "docker", "FROM": "debian", "PYTHON": "3.12"}
    assert choose_arguments(TEXT, {"BOOTSTRAP": "docker", "FROM": "a"}, offered={"FROM": "b"})["FROM"] == "a"


def test_a_variable_left_out_is_named() -> None:
    with pytest.raises(InvalidInput, match=r"x\.def leaves open.*: FROM \(the image to begin with; --from"):
        choose_arguments(TEXT, {"BOOTSTRAP": "docker"}, "x.def")


def test_variables_that_are_empty_or_unknown() -> None:
    with pytest.raises(InvalidInput, match=r"x\.def leaves open.*: FROM"):
        choose_arguments(TEXT, {"BOOTSTRAP": "docker", "FROM": ""}, "x.def", {"FROM": "debian"})
    with pytest.raises(InvalidInput, match=r"x\.def has no template variable FORM; it has BOOTSTRAP, FROM, PYTHON"):
        choose_arguments(TEXT, {"BOOTSTRAP": "docker", "FORM": "debian"}, "x.def")
    with pytest.raises(InvalidInput, match="it has none"):
        choose_arguments("Bootstrap: docker\nFrom: debian\n", {"FROM": "debian"})


def test_origins(tmp_path: Path) -> None:
    assert split_origin("oras://registry.example/demos/base:1") == ("oras", "registry.example/demos/base:1")
    (tmp_path / "bin").mkdir()
    assert split_origin(str(tmp_path)) == ("localimage", str(tmp_path))
    with pytest.raises(InvalidInput, match="addresses begin with"):
        split_origin("ftp://debian")
    with pytest.raises(InvalidInput, match="no such file"):
        split_origin("debian:12")
    with pytest.raises(InvalidInput, match="no root file system"):
        split_origin(str(tmp_path / "bin"))


@pytest.mark.parametrize("path", DEFINITIONS, ids=lambda path: path.name)
def test_definition_files_say_what_they_are(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    comments = text.partition("Bootstrap")[0]
    assert [line for line in comments.splitlines() if line in ("# Contents", "# Building", "# Running")] == [
        "# Contents",
        "# Building",
        "# Running",
    ]
    assert "Bootstrap: {{ BOOTSTRAP }}\nFrom: {{ FROM }}" in text
    assert "%test" in text


def test_versions_are_pinned() -> None:
    for path in FOLDER.glob("*requirements.txt"):
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line and line[0] not in "#-"]
        assert lines
        assert all(line.count("==") == 1 for line in lines), path


def read_steps(text: str, first: str, last: str) -> list[str]:
    """Commands between two lines, comments and white space apart."""
    body = text[text.index(first) + len(first) :]
    body = body[: body.index(last)] if last else body
    lines = [line.strip() for line in body.replace("\\\n", " ").splitlines()]
    return [" ".join(line.split()) for line in lines if line and not line.startswith(("#", "set -", "export "))]


def join_steps(stage: str) -> str:
    """The first RUN of a Containerfile's stage, a line for each command, as in a definition file."""
    found = re.search(r"^RUN (.*\\\n|#.*\n)+.*\n", stage, re.MULTILINE)
    assert found
    return found[0].replace("; \\\n", "\n")


def test_the_containerfile_does_what_the_definition_files_do() -> None:
    """Step by step; both are built only where buildah and Apptainer are."""
    twin = (FOLDER / "Containerfile").read_text(encoding="utf-8")
    base = (FOLDER / "base.def").read_text(encoding="utf-8")
    server = (FOLDER / "server.def").read_text(encoding="utf-8")
    build, final = server.split("Stage: final")
    pairs = [
        (read_steps(base, "%post\n", "%environment"), "base"),
        (read_steps(build, "%post\n", "Bootstrap: localimage"), "build"),
        (read_steps(final, "%post\n", "%environment"), "final"),
    ]
    for steps, stage in pairs:
        own = twin[twin.index(f" AS {stage}\n") :]
        own = own[: own.index("\nFROM ")] if "\nFROM " in own else own
        told = read_steps(join_steps(own), "RUN set -eu\n", "")
        labels = [step for step in steps if "APPTAINER_LABELS" in step]
        assert told == [step for step in steps if step not in labels], stage
    for copied in ("demos_hpc", "csrc", "meson.build", "meson.options", "pyproject.toml", "README.md", "LICENSE"):
        assert f"{{{{ SOURCE }}}}/{copied} /opt/source/{copied}" in build
        assert f"COPY {copied} /opt/source/{copied}\n" in twin
    assert twin.count("org.opencontainers.image.") >= 5
    tests = [line.strip() for line in final.partition("%test\n")[2].splitlines() if "demos-hpc" in line]
    assert [line for line in twin.splitlines() if line.startswith("RUN demos-hpc")] == [f"RUN {line}" for line in tests]
