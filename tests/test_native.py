"""Models in shared libraries: served as if they were written in Python, and refused with reasons."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compiling import EXAMPLES, MODELS, Workshop
from serving import serving

import demos_hpc
from demos_hpc.config import Config
from demos_hpc.errors import BadVersion, InvalidInput, ModelCrashed, ModelFailed, ModelNotFound, NotOffered
from demos_hpc.installation import Installation
from demos_hpc.messages import FloatArray
from demos_hpc.model import LoadedModel, load
from demos_hpc.native import NativeModel, open_library
from demos_hpc.testing import Gaussian, check_model

RNG = np.random.default_rng(5)
POINT = np.array([0.3, 1.7])
ABOVE, BELOW = np.array([[2.0]]), np.array([[0.0]])
BOX: dict[str, Any] = {"name": "box", "parameters": ["a", "b"], "observables": ["x", "y"]}


@pytest.fixture
def gaussian(workshop: Workshop) -> Path:
    return workshop.make(EXAMPLES / "gaussian.c")


@pytest.fixture
def failing(workshop: Workshop) -> Any:
    """The path of the failing model, ``failing("error")``."""
    library = workshop.make(EXAMPLES / "failing.c")

    def describe(mode: str, **settings: Any) -> str:
        return workshop.describe(library, f"{mode}.json", settings={"mode": mode, **settings})

    return describe


@pytest.fixture
def scalars(workshop: Workshop) -> Any:
    """A description of plain functions, ``scalars(density="box_density_")``."""
    library = workshop.make(MODELS / "scalars.c", linked=False)

    def describe(**entries: Any) -> str:
        return workshop.describe(library, "-".join(entries) + ".json", **{**BOX, **entries})

    return describe


def assert_close(got: FloatArray, wanted: FloatArray) -> None:
    """Equal but for the last bit of logarithms, where C's and NumPy's differ."""
    np.testing.assert_allclose(got, wanted, rtol=1e-15, atol=1e-15)


# ---- a plug-in against its twin in Python ---------------------------------------------------------------------------


@pytest.mark.parametrize("d", [1, 3, 7])
@pytest.mark.parametrize("threads", [1, 3])
def test_a_plug_in_answers_as_its_twin_in_python(d: int, threads: int, gaussian: Path, workshop: Workshop) -> None:
    model = load(workshop.describe(gaussian, f"{d}.json", settings={"d": d}), Config(threads=threads))
    twin = LoadedModel(Gaussian(d))
    assert model.model.threads == threads
    assert model.spec == twin.spec
    x = RNG.normal(size=(10_000, d))
    rows = np.stack([RNG.normal(size=10_000), RNG.uniform(0.5, 2, size=10_000)], axis=1)
    for params in (POINT, rows):
        assert_close(model.log_density(x, params), twin.log_density(x, params))
        for wrt_x in (False, True):
            got = model.log_density_gradient(x, params, wrt_x=wrt_x)
            wanted = twin.log_density_gradient(x, params, wrt_x=wrt_x)
            assert_close(got[0], wanted[0])
            np.testing.assert_allclose(got[1], wanted[1], rtol=1e-15, atol=4e-15)
    np.testing.assert_array_equal(model.evaluate(rows), twin.evaluate(rows))
    # Draws are the same numbers, but for the rounding of tables.
    np.testing.assert_allclose(
        model.sample(2048, 5000, POINT, 7), twin.sample(2048, 5000, POINT, 7), rtol=1e-12, atol=1e-13
    )


def test_examples_hold_to_the_contract(gaussian: Path, workshop: Workshop) -> None:
    for threads in (1, 2):
        verdict = check_model(load(str(gaussian), Config(threads=threads)))
        assert verdict.passed, verdict
        assert not verdict.warnings, verdict


def test_plain_functions_are_served_by_their_names(workshop: Workshop, tmp_path: Path) -> None:
    library = workshop.make(EXAMPLES / "peak.c", linked=False)
    description = library.with_name("peak.json")
    description.write_bytes((EXAMPLES / "peak.json").read_bytes())
    verdict = check_model(load(str(description)))
    assert verdict.passed, verdict
    assert not verdict.warnings, verdict


def test_results_do_not_depend_on_threads(gaussian: Path) -> None:
    x = RNG.normal(size=(200_000, 1))
    one, four = (load(str(gaussian), Config(threads=n)) for n in (1, 4))
    for _ in range(3):  # what a row costs is learned from call to call
        np.testing.assert_array_equal(one.log_density(x, POINT), four.log_density(x, POINT))
        np.testing.assert_array_equal(one.sample(1024, 50_000, POINT, 3), four.sample(1024, 50_000, POINT, 3))


def test_a_plug_in_is_served(gaussian: Path) -> None:
    x = RNG.normal(size=(5000, 1))
    with demos_hpc.local(str(gaussian), workers=2) as model, demos_hpc.local(Gaussian) as twin:
        assert model.spec.name == "gaussian"
        assert_close(model.log_density(x, POINT), twin.log_density(x, POINT))
        np.testing.assert_allclose(model.log_likelihood(x, POINT), twin.log_likelihood(x, POINT), rtol=1e-14)
        value, gradient = model.log_likelihood_gradient(x, POINT)
        np.testing.assert_allclose(gradient, twin.log_likelihood_gradient(x, POINT)[1], rtol=1e-12, atol=1e-13)
        assert value == model.log_likelihood(x, POINT)
        np.testing.assert_allclose(
            model.sample(3000, POINT, seed=9), twin.sample(3000, POINT, seed=9), rtol=1e-12, atol=1e-13
        )


# ---- how it is called -----------------------------------------------------------------------------------------------


def ask_spy(workshop: Workshop, about: str, config: Config | None = None, **settings: Any) -> LoadedModel:
    library = workshop.make(MODELS / "spy.c")
    path = workshop.describe(library, f"{about}.json", settings={"about": about, **settings})
    return load(path, config or Config())


def test_arrays_go_by_their_addresses(workshop: Workshop) -> None:
    x, params = np.zeros((5, 3)), np.zeros((5, 2))
    x.flags.writeable = params.flags.writeable = False  # as a frame's may be
    steps = np.arange(5)
    assert ask_spy(workshop, "x").log_density(x, params).tolist() == (x.ctypes.data + 24 * steps).tolist()
    assert ask_spy(workshop, "params").log_density(x, params).tolist() == (params.ctypes.data + 16 * steps).tolist()
    assert ask_spy(workshop, "params").log_density(x, params[0]).tolist() == [params.ctypes.data] * 5
    value = ask_spy(workshop, "value").log_density(x, params)
    assert value.tolist() == (value.ctypes.data + 8 * steps).tolist()


def test_one_point_or_one_for_each_row(workshop: Workshop) -> None:
    x, params = np.zeros((5, 3)), np.zeros((5, 2))
    model = ask_spy(workshop, "stride")
    assert set(model.log_density(x, params)) == {2}
    assert set(model.log_density(x, params[0])) == {0}
    assert len(model.log_density(x[:0], params[0])) == 0
    single = ask_spy(workshop, "stride", flags=32)
    assert not single.spec.params_per_row
    assert set(single.log_density(x, params)) == {0}


@pytest.mark.parametrize(("flags", "threads"), [(0, 1), (1, 3), (8, 1), (9, 3)])
def test_threads_compute_where_the_model_allows_it(flags: int, threads: int, workshop: Workshop) -> None:
    model = ask_spy(workshop, "thread", Config(threads=3), flags=flags)
    assert model.model.threads == threads
    x = np.zeros((1 << 20, 3))
    other = max(model.log_density(x, POINT).max() for _ in range(20))
    assert other == (flags == 1)
    assert model.spec.row_independent == (flags < 8)


def test_single_precision_is_noted(workshop: Workshop) -> None:
    assert ask_spy(workshop, "rows", flags=4).spec.notes == {"precision": "single"}
    assert ask_spy(workshop, "rows").spec.notes == {}


def test_rows_that_depend_on_one_another_are_computed_by_blocks(workshop: Workshop) -> None:
    model = ask_spy(workshop, "rows", Config(threads=3), flags=9)
    assert model.log_density(np.zeros((2500, 3)), POINT).tolist() == [1024.0] * 2048 + [452.0] * 452


def test_others_go_on_while_a_model_computes(failing: Any) -> None:
    ours, theirs = os.pipe()
    model = load(failing("wait", descriptor=ours))
    answers: list[FloatArray] = []
    thread = threading.Thread(target=lambda: answers.append(model.log_density(ABOVE, np.array([1.0]))))
    thread.start()
    os.write(theirs, b"!")  # which the model waits for, and nobody could write if it kept the interpreter
    thread.join()
    assert np.isfinite(answers[0]).all()
    os.close(ours)
    os.close(theirs)


def test_several_threads_ask_one_after_the_other(gaussian: Path) -> None:
    model = load(str(gaussian), Config(threads=2))
    x = RNG.normal(size=(20_000, 1))
    wanted = model.log_density(x, POINT)
    answers: list[bool] = []

    def ask() -> None:
        answers.extend(bool((model.log_density(x, POINT) == wanted).all()) for _ in range(20))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [True] * 80


def test_arrays_that_are_none_are_made_so_or_refused(gaussian: Path) -> None:
    model = NativeModel(str(gaussian), Config())
    x = RNG.normal(size=(6, 2))
    wanted = model.log_density(np.ascontiguousarray(x[:, :1]), POINT)
    np.testing.assert_array_equal(model.log_density(x[:, :1], POINT), wanted)
    np.testing.assert_array_equal(
        model.log_density(x[:, :1].astype(np.float32), POINT),
        model.log_density(np.float64(np.float32(x[:, :1])), POINT),
    )
    loaded = LoadedModel(model)
    for x_, params in [(x, POINT), (x[:, :1], POINT[:1]), (x[:, :1], np.ones((5, 2))), (x[:, :1], np.ones((6, 3)))]:
        with pytest.raises(InvalidInput, match=r"has shape \(.*\); it is"):
            loaded.log_density(x_, params)
        with pytest.raises(InvalidInput, match="has shape"):
            loaded.log_density_gradient(x_, params)
    with pytest.raises(InvalidInput, match="has shape"):
        loaded.evaluate(np.ones((3, 4)))
    with pytest.raises(InvalidInput, match="has shape"):
        loaded.sample(0, 5, np.ones(3), 1)


def test_a_stream_goes_on_behind_the_draws(gaussian: Path) -> None:
    model: Any = NativeModel(str(gaussian), Config())
    rng, same, twin = (np.random.Generator(np.random.Philox(key=9)) for _ in range(3))
    drawn = np.concatenate([model.sample(n, POINT, rng) for n in (3, 1, 2000, 7)])
    np.testing.assert_array_equal(drawn, model.sample(2011, POINT, same))
    np.testing.assert_allclose(drawn, POINT[0] + POINT[1] * twin.standard_normal((2011, 1)), rtol=1e-12, atol=1e-13)
    assert rng.random() == same.random() == twin.random()
    other = np.random.default_rng(3)
    assert (model.sample(5, POINT, other) != model.sample(5, POINT, other)).all()


def test_a_block_is_the_same_asked_for_in_either_way(gaussian: Path) -> None:
    model = NativeModel(str(gaussian), Config())
    loaded, blocks = LoadedModel(model), model.demos_sample_rows
    together = loaded.sample(1024, 3000, POINT, 17)
    np.testing.assert_array_equal(together, blocks(1024, 3000, POINT, 17))
    loaded._sample_rows = None  # block by block, with NumPy's generator set to each
    np.testing.assert_array_equal(together, loaded.sample(1024, 3000, POINT, 17))


# ---- plain functions ------------------------------------------------------------------------------------------------


def test_plain_functions_of_every_kind(scalars: Any) -> None:
    everything = {
        "log_density": "box_log_density",
        "log_density_gradient": "box_gradient",
        "log_density_gradient_x": "box_gradient_x",
        "sample": "box_sample",
        "evaluate": "box_moments",
    }
    params, inside, outside = np.array([2.0, 4.0]), [1.0, 1.0], [3.0, 1.0]
    x = np.array([inside, outside, [np.nan, 1.0]])
    for path in (scalars(**everything, outputs=["u", "v"]), scalars(density="box_density_")):
        value = load(path).log_density(x, params)
        assert_close(value, np.array([-np.log(8), -np.inf, np.nan]))
    model = load(scalars(**everything, outputs=["u", "v"]))
    value, gradient = model.log_density_gradient(x[:2], params)
    assert gradient.tolist() == [[-0.5, -0.25], [0.0, 0.0]]
    assert model.log_density_gradient(x[:2], params, wrt_x=True)[1].tolist() == [[0.0, 0.0]] * 2
    assert model.evaluate(np.array([params, params / 2])).tolist() == [[1.0, 2.0], [0.5, 1.0]]
    drawn = model.sample(0, 2000, params, 3)
    words = np.concatenate(
        [np.random.Generator(np.random.Philox(key=3, counter=[0, 0, 0, b])).random(2048) for b in (0, 1)]
    )
    np.testing.assert_array_equal(drawn, words[:4000].reshape(2000, 2) * params)
    with pytest.raises(NotOffered):
        load(scalars(density="box_density_")).evaluate(params[None])


def test_a_negative_density_is_the_models_error(scalars: Any) -> None:
    model = load(scalars(density="negative_density"))
    with pytest.raises(ModelFailed, match=r"log_density\(\) of model 'box': the density is -0\.5, .*x = \(1\.5, 2\)"):
        model.log_density(np.array([[0.0, 1.0], [1.5, 2.0]]), POINT)


def test_a_generator_of_its_own_is_declared(scalars: Any) -> None:
    model = load(scalars(density="box_density_", sample="own_sample", reproducible=False))
    assert not model.spec.reproducible
    first, second = (model.sample(0, 10, POINT, 1) for _ in range(2))
    assert (first != second).all()
    assert ((first >= 0) & (first <= POINT)).all()


# ---- failures -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "kind", "text"),
    [
        ("error", ModelFailed, r"log_density\(\) of model 'failing': x\[\d\] is 2, above 1"),
        ("status", ModelFailed, r"log_density\(\) returned 4711, UNKNOWN, which no model does: x\[\d\] is 2"),
        ("silent", ModelFailed, r"log_density\(\) returned MODEL_FAILED and no message"),
        ("invalid", InvalidInput, r"log_density\(\) of model 'failing': there is no table for x = 2"),
    ],
)
def test_status_and_text_become_exceptions(mode: str, kind: type[Exception], text: str, failing: Any) -> None:
    with demos_hpc.local(failing(mode)) as model:
        assert np.isfinite(model.log_density(BELOW, [1.0]))
        with pytest.raises(kind, match=text) as caught:
            model.log_density([[0.0], [2.0]], [1.0])
        assert type(caught.value) is kind
        assert np.isfinite(model.log_density(BELOW, [1.0]))  # it goes on


def test_nan_passes(failing: Any) -> None:
    with demos_hpc.local(failing("nan")) as model:
        assert np.isnan(model.log_density([[0.0], [2.0], [0.0]], [1.0])).tolist() == [False, True, False]


CRASHES = {"crash": -signal.SIGSEGV, "abort": -signal.SIGABRT, "exit": 3}


@pytest.mark.parametrize("mode", CRASHES)
def test_what_kills_a_process_is_what_it_says(mode: str, failing: Any, tmp_path: Path) -> None:
    code = "import sys, demos_hpc; demos_hpc.local(sys.argv[1]).log_density([[2.0]], [1.0])"
    # Not from here, where Python would find the sources, which may have no library.
    done = subprocess.run([sys.executable, "-c", code, failing(mode)], capture_output=True, check=False, cwd=tmp_path)
    assert done.returncode == CRASHES[mode], done.stderr


@pytest.mark.parametrize("mode", CRASHES)
def test_a_model_that_kills_costs_the_worker_and_not_the_service(
    mode: str, failing: Any, tmp_path: Path, workshop: Workshop
) -> None:
    library = os.environ.get("DEMOS_LIBRARY", "")
    with serving(failing(mode), tmp_path, workers=2, library=library) as server, server.connect() as model:
        assert np.isfinite(model.log_density(BELOW, [1.0]))
        with pytest.raises(ModelCrashed):
            model.log_density(ABOVE, [1.0])
        assert np.isfinite(model.log_density(BELOW, [1.0]))


# ---- what is refused, and why ---------------------------------------------------------------------------------------


def refuse(path: str, kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=text) as caught:
        load(path)
    assert type(caught.value) is kind


def test_all_that_a_description_lacks_is_named(scalars: Any, workshop: Workshop) -> None:
    library = workshop.make(MODELS / "scalars.c", linked=False)
    path = workshop.describe(library, "bare.json", density="box_density_", evaluate="box_moments")
    refuse(path, InvalidInput, 'name, parameters, observables, outputs are not given; write .*"outputs": .* there')
    path = workshop.describe(library, "less.json", evaluate="box_moments", name="box", parameters=[])
    refuse(path, InvalidInput, "the model's outputs is not given")


@pytest.mark.parametrize(
    ("entries", "text"),
    [
        ({"density": "box_densty"}, "density is 'box_densty', and .* has no such function; Fortran compilers"),
        ({"density": "a b"}, "density is 'a b'; it is the name of a function"),
        ({"density": 3}, "density is 3"),
        ({"density": "int"}, "has no such function"),
        ({"density": "box_density_", "paramters": []}, "unknown entry 'paramters'; did you mean 'parameters'"),
        ({"density": "box_density_", "zzz": 1}, "unknown entry 'zzz'; what is for the model alone"),
        ({"density": "box_density_", "threads": 0}, "threads is 0; it is a number, 1 or more"),
        ({"density": "box_density_", "threads": "2"}, "threads is '2'"),
        ({"density": "box_density_", "threads": True}, "threads is True"),
        ({"density": "box_density_", "thread_safe": 1}, "thread_safe is 1; it is true or false"),
        ({"density": "box_density_", "settings": []}, "settings is "),
        ({"density": "box_density_", "threads": 2}, '"thread_safe": true'),
        ({"density": "box_density_", "version": "one"}, "version 'one'"),
        ({"density": "box_density_", "parameters": [{"nme": "a"}]}, "nme"),
        ({"density": "box_density_", "block_rows": 0}, "block_rows is 0"),
        ({}, "has no demos_model_init"),
    ],
)
def test_a_description_that_is_wrong(entries: dict[str, Any], text: str, scalars: Any) -> None:
    refuse(scalars(**entries), InvalidInput, text)


def test_a_description_may_have_more_threads_for_a_code_that_is_made_for_them(scalars: Any) -> None:
    assert load(scalars(density="box_density_", thread_safe=True, threads=2)).model.threads == 2
    assert load(scalars(density="box_density_", thread_safe=True)).model.threads == 1
    assert load(scalars(density="box_density_"), Config(threads=4)).model.threads == 1


def test_files_that_are_not_what_they_should_be(gaussian: Path, tmp_path: Path, workshop: Workshop) -> None:
    text = tmp_path / "libtext.so"
    text.write_text("no library", encoding="utf-8")
    refuse(str(text), ModelFailed, "cannot be loaded.*ldd")
    refuse(str(tmp_path / "none.so"), ModelNotFound, "none.so' does not exist")
    refuse(f"{gaussian}:{tmp_path / 'none.json'}", ModelNotFound, "none.json' does not exist")
    description = tmp_path / "model.json"
    for said, reason in [
        ("{", "cannot be read"),
        ("[]", "is no object"),
        ('{"name": "a"}', 'name the library of the model, "library"'),
        ('{"library": "./libnone.so"}', "there is no library .*libnone.so"),
    ]:
        description.write_text(said, encoding="utf-8")
        refuse(str(description), InvalidInput, reason)
    refuse(workshop.describe(gaussian, settings={"d": 0}), InvalidInput, "the model of .*: d is 0; it is 1 to 100")
    refuse(workshop.describe(gaussian, settings={"d": "x"}), InvalidInput, 'd: "x" is not a number')
    unlinked = workshop.make(MODELS / "scalars.c", "-Ddemos_uniform=missing_everywhere", linked=False)
    refuse(str(unlinked), ModelFailed, "undefined symbol: missing_everywhere")


def test_a_model_that_cannot_be_made_says_why(failing: Any) -> None:
    refuse(failing("init"), ModelFailed, "the model of .*: the tables are not where they should be")


# ---- versions -------------------------------------------------------------------------------------------------------


def test_a_plug_in_of_an_older_version_is_served(workshop: Workshop) -> None:
    x, params = np.array([[2.0], [3.0]]), np.array([5.0])
    for flags in ((), ("-DSIZE=offsetof(demos_model, log_density_gradient)",)):
        model = load(str(workshop.make(MODELS / "versions.c", *flags)), Config(threads=2))
        assert model.spec.name == "old"
        assert model.log_density(x, params).tolist() == [-10.0, -15.0]
        assert model.spec.operations == ("log_density", "log_likelihood", "upload")


@pytest.mark.parametrize("flag", ["-DMAJOR=2", "-DMAJOR=0", "-DMINOR=1000", "-DLATER -DMINOR=1000"])
def test_a_plug_in_of_another_version_is_refused(flag: str, workshop: Workshop) -> None:
    library = workshop.make(MODELS / "versions.c", *flag.split())
    refuse(
        str(library), BadVersion, r"built against version \d+\.\d+ of demos.h, and this library serves 1\.0 to 1\.\d+"
    )


def test_a_libdemos_that_does_not_fit_is_refused(tmp_path: Path, workshop: Workshop) -> None:
    other = tmp_path / "other.c"
    other.write_text("unsigned demos_abi_version(void);\nunsigned demos_abi_version(void) { return 2 << 16; }\n")
    include = open_library_of(workshop).include
    with pytest.raises(BadVersion, match=r"libother.so has version 2\.0 of demos.h, .* has 1\."):
        open_library(Installation(include, workshop.make(other, linked=False)))
    left_out = ("libdemos: no C compiler was found", "compiled modules: none")
    with pytest.raises(InvalidInput, match=r"has none \(libdemos: no C compiler was found\): install a C compiler"):
        open_library(Installation(include, tmp_path / "none.so", left_out=left_out))
    with pytest.raises(InvalidInput, match="the dynamic linker knows no libnowhere"):
        open_library(Installation(include, Path("libnowhere.so.1")))


def open_library_of(workshop: Workshop) -> Installation:
    from demos_hpc.installation import find_installation

    return find_installation(Config.load())


# ---- what it is known by --------------------------------------------------------------------------------------------


def test_models_are_told_apart_by_their_code_and_their_descriptions(gaussian: Path, workshop: Workshop) -> None:
    paths = [
        str(gaussian),
        workshop.describe(gaussian, "2.json", settings={"d": 2}),
        workshop.describe(gaussian, "0.json"),
    ]
    sources = [load(path).source for path in paths]
    assert sources[0] == sources[2] != sources[1]
    assert "libgaussian.so" in repr(load(paths[0]).model)


def test_a_model_is_ended_with_its_last_user(gaussian: Path) -> None:
    for _ in range(200):  # under a sanitizer or valgrind, what is not freed shows
        NativeModel(str(gaussian), Config(threads=2))
    gc.collect()
    assert threading.active_count() < 50
    assert len(os.listdir("/proc/self/task")) < 50
