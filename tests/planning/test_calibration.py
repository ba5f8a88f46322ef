"""The roofline's constants come from published steps, and predict those that they do not know."""

import pytest

from lidit_jax.planning.calibration import error, fit, held_out, summary
from lidit_jax.planning.published_runs import published_runs
from lidit_jax.planning.roofline import CONSTANTS


def test_the_constants_are_the_fit_of_all_published_steps():
    fitted = fit(published_runs())
    assert fitted.matmul == pytest.approx(CONSTANTS.matmul, abs=0.005)
    assert fitted.exposed == pytest.approx(CONSTANTS.exposed, abs=0.02)


def test_flux_and_the_v5p_rows_are_predicted_within_a_fifth_by_constants_of_other_families():
    v5p = [one for one in held_out() if "v5p" in one.run.family]
    assert len(v5p) == 17
    assert {one.run.name for one in v5p} >= {"Flux", "32B", "64B", "128B", "256B", "512B", "1024B"}
    errors = {f"{one.run.name}, {one.run.topology.name}": one.without_family for one in v5p}
    assert all(abs(value) < 0.2 for value in errors.values()), errors


def test_no_published_step_is_more_than_a_quarter_off_when_held_out():
    assert len(held_out()) == len(published_runs()) == 39
    for one in held_out():
        assert abs(one.without_run) < 0.25, one
        assert abs(one.without_family) < 0.25, one
        assert one.without_family != error(one.run, CONSTANTS), "the family was in the fit"


def test_the_summary_has_a_line_a_family():
    assert [family for family, *_ in summary()] == [
        *("MaxDiffusion v5p", "MaxText v5p", "MaxText v5e", "MaxText v4", "MaxText v6e"),
    ]
    assert all(median <= alone for _, _, median, alone, _ in summary())
