"""Descriptions of models in other languages, and the paths by which such models are named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from demos_hpc.errors import InvalidInput, ModelNotFound
from demos_hpc.glue import Glue, make_spec, read_glue
from demos_hpc.model_paths import find, find_absolute, is_path, split_native

SAID: dict[str, Any] = {"name": "peak", "parameters": ["mass"], "observables": [{"name": "energy", "unit": "GeV"}]}


@pytest.fixture
def library(tmp_path: Path) -> Path:
    path = tmp_path / "libpeak.so"
    path.write_bytes(b"code")
    return path


def describe(directory: Path, **entries: Any) -> str:
    path = directory / "peak.json"
    path.write_text(json.dumps(entries), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        ("libpeak.so", ("libpeak.so", "")),
        ("./a/libpeak.so.1.2", ("./a/libpeak.so.1.2", "")),
        ("./libpeak.so:a/peak.json", ("./libpeak.so", "a/peak.json")),
        ("peak.json", ("", "peak.json")),
        ("odd:name.json", ("", "odd:name.json")),
        ("peak.py:Peak", None),
        ("package.so.module:Peak", None),
        ("nu_atm", None),
        ("peak.h5", None),
    ],
)
def test_paths_of_libraries_and_descriptions(path: str, parts: tuple[str, str] | None) -> None:
    assert split_native(path) == parts
    assert is_path(path) == (parts is not None or path != "nu_atm")


def test_a_library_is_called_by_its_name(library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    description = describe(tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lib.so").touch()
    assert find("libpeak.so") == ("libpeak.so", "peak")
    assert find("libpeak.so:peak.json")[1] == find("./peak.json")[1] == "peak"
    assert find("lib.so")[1] == "lib"
    assert find_absolute("./libpeak.so") == str(library)
    assert find_absolute("libpeak.so:peak.json") == f"{library}:{description}"
    for path in ("none.so", "none.json", "libpeak.so:none.json"):
        with pytest.raises(ModelNotFound, match=r"none\.\w+' does not exist"):
            find(path)
    with pytest.raises(ModelNotFound, match=r"a library file\.so or its description file\.json"):
        find("peak")


def test_a_description_says_where_its_library_is(library: Path, tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    path = describe(tmp_path / "below", library="../libpeak.so", density="f", threads=3, thread_safe=True, **SAID)
    glue = read_glue("", path)
    assert glue.library.resolve() == library
    assert (glue.functions, glue.threads, glue.thread_safe) == ({"density": "f"}, 3, True)
    assert glue.spec == SAID
    # What is named on the command line wins.
    other = tmp_path / "libother.so"
    other.touch()
    assert read_glue(str(other), path).library == other
    assert read_glue(str(other), "") == Glue(other, other)


def test_what_programs_read_from_the_same_file_is_left_alone(library: Path, tmp_path: Path) -> None:
    path = describe(tmp_path, library="libpeak.so", log_level="debug", log_file="a.log", **SAID)
    assert read_glue("", path).spec == SAID


def test_the_description_wins_over_what_the_library_says(library: Path) -> None:
    glue = Glue(library, library, spec={"version": "2.0.0", "parameters": [{"name": "m", "default": 1}]})
    spec = make_spec(glue, {**SAID, "version": "1.0.0"}, has_rows=True, has_outputs=False)
    assert (spec.name, spec.version, spec.param_names) == ("peak", "2.0.0", ("m",))
    assert spec.observables[0].unit == "GeV"


def test_datasets_lie_beside_the_description(library: Path, tmp_path: Path) -> None:
    glue = read_glue("", describe(tmp_path, library="libpeak.so", datasets=[{"name": "d", "path": "d.h5:/d"}], **SAID))
    spec = make_spec(glue, {}, has_rows=False, has_outputs=False)
    assert spec.datasets[0].path == f"{tmp_path}/d.h5:/d"


def test_missing_entries_are_named_with_examples(library: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput) as caught:
        make_spec(Glue(library, library), {"name": "peak"}, has_rows=True, has_outputs=True)
    text = str(caught.value)
    assert "parameters, observables, outputs are not given" in text
    assert f"in a file, and serve {library}:file.json" in text
    assert json.loads("{" + text[text.index('"parameters"') : text.index(" in a file")] + "}")["outputs"]


def test_digests_tell_models_apart(library: Path, tmp_path: Path) -> None:
    plain = Glue(library, library)
    digests = {
        glue.digest() for glue in (plain, Glue(library, library, {"density": "f"}), Glue(library, library, {}, SAID))
    }
    digests.add(Glue(library, library, settings={"a": 1}).digest())
    assert len(digests) == 4
    assert Glue(tmp_path / "x", library).digest() == plain.digest()
    library.write_bytes(b"other code")
    assert plain.digest() not in digests
