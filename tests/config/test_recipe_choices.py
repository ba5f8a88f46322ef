"""Words behind a recipe's colon: stages, variants, topologies and slices."""

import dataclasses
from pathlib import Path

import ml_collections
import pytest

from lidit_jax.config.load import load_recipe, recipe_choices
from lidit_jax.config.recipe_choices import SLICES, Choices
from lidit_jax.errors import LiditError
from lidit_jax.hardware.topologies import parse_topology
from lidit_jax.planning.plan_mesh import check_split, recipe_mesh
from lidit_jax.pytorch.pixart_config import read_transformer

RECIPES = {"lidit_1b": (256,), "lidit_10b": (512, 1024)}


def test_words_override_fields_in_any_order():
    config = load_recipe("lidit_10b:2slices,v5p:8x8x16,head128,1024px", ["optimizer.beta2=0.95"])
    assert config.data.image_size == 1024
    assert config.training.init_from, "the second stage starts from the first"
    assert config.model.width // config.model.heads == 128
    assert (config.mesh.replica, config.mesh.fsdp, config.mesh.data) == (2, 32, -1)
    assert config.optimizer.beta2 == 0.95
    assert load_recipe("lidit_10b:") == load_recipe("lidit_10b")
    assert load_recipe("configs/lidit_1b.py:online").data.text_features == "online"


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_layout_divides_its_topology_on_one_two_and_four_slices(recipe):
    choices = recipe_choices(recipe)
    assert {"v5e:16x16", "v5p:4x8x8", "v5p:8x8x16", "v6e:16x16"} < set(choices.placements)
    assert any(name.startswith("tpu7x") for name in choices.placements)
    for name, sizes in choices.placements.items():
        assert tuple(sizes) == RECIPES[recipe]
        for size in sizes:
            for word, slices in {"": 1, **SLICES}.items():
                stage = "1024px" if size == 1024 else ""
                topology = parse_topology(name, slices)
                if topology.devices > load_recipe(recipe).training.batch_size:
                    continue
                config = load_recipe(f"{recipe}:{stage},{name},{word}")
                check_split(config, topology, recipe_mesh(config, topology))


@pytest.mark.parametrize(("stage", "scale"), [("", 0.5), ("512px", 1), ("1024px", 2)])
def test_the_network_that_grows_from_pixart_sigma_is_its_own_but_for_the_refiners(stage, scale):
    config = load_recipe(f"lidit_1b_from_pixart:{stage}")
    stored = {
        "_class_name": "PixArtTransformer2DModel",
        "sample_size": config.data.image_size // 8,
        "interpolation_scale": scale,
        "use_additional_conditions": False,
        "caption_channels": 4096,
    }
    sigma = read_transformer(stored, Path("config.json"), 8, "bfloat16")
    ours, theirs = config.model, sigma.model
    kept = {"refiner": ours.refiner, "remat": ours.remat}
    assert dataclasses.replace(theirs, **kept) == ours
    assert (config.vae.channels, config.vae.downsample) == (sigma.channels, 8)


@pytest.mark.parametrize("stage", ["", "all", "512px", "1024px"])
def test_every_stage_from_pixart_has_a_layout(stage):
    for name in recipe_choices("lidit_1b_from_pixart").placements:
        config, topology = load_recipe(f"lidit_1b_from_pixart:{stage},{name}"), parse_topology(name)
        check_split(config, topology, recipe_mesh(config, topology))
        assert bool(config.optimizer.freeze) == bool(config.training.init_new) == (stage == "")


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ("lidit_10b:v5p:9x9x9", "no choice 'v5p:9x9x9', only 1024px, head128"),
        ("lidit_1b:1024px", "no choice '1024px', only head128, online, unfiltered, v5e:16x16"),
        ("lidit_1b:v5p:8x8x16,4slices", "4096 devices, more than the 2048 images of this recipe"),
        ("demo:head128", "no choice 'head128', only pairs, 2slices, 4slices"),
        ("nothing:head128", "no recipe 'nothing'"),
    ],
)
def test_unknown_words_name_those_that_exist(recipe, message):
    with pytest.raises(LiditError) as refusal:
        load_recipe(recipe)
    assert message in str(refusal.value)


def test_a_choice_inside_of_a_field_that_is_no_group_is_refused():
    config, choices = load_recipe("demo").to_dict(), Choices({"wide": {"model.width.of": 1}})
    with pytest.raises(
        LiditError, match=r"sets config\.model\.width\.of, but width is not a group"
    ):
        choices.apply(ml_collections.ConfigDict(config), "wide")
