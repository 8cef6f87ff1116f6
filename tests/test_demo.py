"""The demo: its fit and its scan, its picture, and all of it over MPI."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from launching import run as run_command

from demos_hpc import demo, plots
from demos_hpc.errors import InvalidInput, LaunchError
from demos_hpc.local import local


@pytest.fixture(scope="module")
def found() -> demo.Demo:
    """A small one, on a coarse grid."""
    steps: list[tuple[str, int, int]] = []
    result = demo.run(local("nu_atm"), 400, 1, lambda *step: steps.append(step), 5)
    assert {name.split()[0] for name, _, _ in steps} == {"drawing", "fitting,", "scanning"}
    assert all(done <= total for _, done, total in steps if total)
    return result


def test_fit_is_near_the_truth(found: demo.Demo) -> None:
    assert (np.abs(found.fit.pulls) < 4).all()
    assert (found.fit.errors > 0).all()


def test_scan_finds_nothing_better_than_the_fit(found: demo.Demo) -> None:
    assert found.profile.values.min() > -0.05
    assert found.profile.values[2, 2] == pytest.approx(0, abs=1e-3)  # the grid's center is the fit


def test_scan_is_the_profile_likelihood(found: demo.Demo) -> None:
    """Near the fit, where the Newton step is good."""
    from iminuit import Minuit

    model = local("nu_atm")
    theta = [found.profile.x[1], found.profile.y[2]]
    likelihood = model.likelihood(found.events, free=demo.FREE[2:], fixed=dict(zip(demo.FREE[:2], theta, strict=True)))
    minuit = Minuit(likelihood.cost, *found.fit.values[2:])
    minuit.migrad()
    assert found.profile.values[1, 2] == pytest.approx(2 * (minuit.fval + found.fit.log_likelihood), abs=0.3)


def test_spectrum_is_normalized(found: demo.Demo) -> None:
    spectrum = found.spectrum
    for density in (spectrum.fitted, spectrum.unoscillated):
        by_energy = plots._integrate(density, spectrum.cos_zenith)
        assert plots._integrate(by_energy, spectrum.energy) == pytest.approx(1, abs=1e-3)


def test_refinement_is_exact_for_cubics() -> None:
    x, y = np.linspace(-1, 2, 6), np.linspace(0, 3, 7)
    profile = demo.Profile(x, y, x[:, None] ** 3 - 2 * x[:, None] * y**3)
    fine_x, fine_y, values = plots.refine(profile, 4)
    np.testing.assert_allclose(values, fine_x[:, None] ** 3 - 2 * fine_x[:, None] * fine_y**3, atol=1e-12)


def test_picture(found: demo.Demo, tmp_path: Path) -> None:
    plots.draw_demo(found, tmp_path / "demo.png")
    assert (tmp_path / "demo.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(InvalidInput, match="cannot be written"):
        plots.draw_demo(found, tmp_path / "no" / "demo.png")


def test_packages_that_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "NEEDS", ("iminuit", "no_such_package"))
    with pytest.raises(LaunchError, match=r"needs no_such_package: pip install 'demos-hpc\[demo\]'"):
        demo.check_needs()


def test_demo_over_mpi(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "demos_hpc", "demo", "--events", "200", "--quick", "--out", "fit.png"]
    launched = run_command(command, cwd=tmp_path, deadline=120, settings={})
    assert launched.code == 0, launched.text
    for word in ("s23sq", "dm31", "pull", "2 worker(s)", "picture in fit.png"):
        assert word in launched.out
    assert launched.err == ""
    assert (tmp_path / "fit.png").read_bytes().startswith(b"\x89PNG")
    assert not launched.left


def test_demo_that_could_not_write_its_picture_does_not_begin(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "demos_hpc", "demo", "--out", "no/fit.png"]
    launched = run_command(command, cwd=tmp_path, deadline=30, settings={})
    assert launched.code == 1
    assert launched.err.startswith("demos-hpc: no/fit.png cannot be written")
