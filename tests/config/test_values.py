"""A field's type is the one list of its values: checks and tables elsewhere follow it."""

import dataclasses
from typing import get_args

import pytest

from lidit_jax.config import schema
from lidit_jax.config.checks import check
from lidit_jax.config.schema import Config
from lidit_jax.config.values import Space, choices, field_types, literal_values, ranges
from lidit_jax.data.scenes.vocabulary import LANGUAGES
from lidit_jax.diffusion.guidance import METHODS
from lidit_jax.diffusion.process import DDPM, RectifiedFlow
from lidit_jax.diffusion.samplers import compatible_samplers
from lidit_jax.diffusion.spacing import compatible_spacings
from lidit_jax.errors import LiditError
from lidit_jax.models.quantized import _TYPES
from lidit_jax.models.rematerialization import POLICIES
from lidit_jax.planning.plan import _ITEM_BYTES
from lidit_jax.planning.roofline import RECOMPUTED
from lidit_jax.training.optimizers import OPTIMIZERS

PROCESSES = {"ddpm": DDPM(), "flow": RectifiedFlow()}


def of_both(table) -> set[str]:
    """The names that a table holds for either process."""
    return {name for process in PROCESSES.values() for name in table(process)}


TABLES = {
    "model.remat": {"none", *POLICIES},
    "training.quantization": {"none", *_TYPES},
    "encoders.dtype": set(_ITEM_BYTES),
    "optimizer.name": set(OPTIMIZERS),
    "data.language": {*LANGUAGES, "both"},
    "diffusion.process": {process.name for process in PROCESSES.values()},
    "diffusion.prediction": of_both(lambda process: process.spaces),
    "diffusion.loss": {"prediction", *of_both(lambda process: process.spaces)},
    "diffusion.weighting": of_both(lambda process: process.weightings),
    "sampling.sampler": of_both(compatible_samplers),
    "sampling.spacing": of_both(compatible_spacings),
    "sampling.guidance_method": {name for methods in METHODS.values() for name in methods},
}


@pytest.mark.parametrize("path", TABLES)
def test_a_table_has_exactly_the_names_that_its_field_takes(path):
    assert TABLES[path] == set(literal_values(field_types(Config)[path]))


def test_the_plan_knows_what_every_policy_recomputes():
    assert set(RECOMPUTED) == set(choices(schema.ModelConfig, "remat"))


def test_a_loss_may_be_measured_in_every_space_or_in_the_predictions_own():
    assert choices(schema.DiffusionConfig, "loss") == ("prediction", *get_args(Space))
    assert choices(schema.DiffusionConfig, "timesteps") == ()


def changed(group, path: str, value):
    """A group of fields with one, below it, of another value."""
    name, _, rest = path.partition(".")
    new = changed(getattr(group, name), rest, value) if rest else value
    return dataclasses.replace(group, **{name: new})


@pytest.mark.parametrize(
    "path", [p for p, hint in field_types(Config).items() if literal_values(hint)]
)
def test_an_unlisted_value_is_refused_with_the_list(path):
    wanted = ", ".join(map(repr, literal_values(field_types(Config)[path])))
    with pytest.raises(LiditError) as refusal:
        check(changed(Config(), path, "nonsense"))
    assert str(refusal.value) == f"config.{path}='nonsense': choose one of {wanted}"


@pytest.mark.parametrize("path", [p for p, hint in field_types(Config).items() if ranges(hint)])
def test_numbers_outside_of_a_fields_range_are_refused(path):
    (allowed,) = ranges(field_types(Config)[path])
    for value in (-1, float("nan"), float("inf")):
        with pytest.raises(LiditError) as refusal:
            check(changed(Config(), path, value))
        assert str(refusal.value) == f"config.{path}={value!r}: {allowed.requirement}"
