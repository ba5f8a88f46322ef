"""HunyuanVideo's refiner as a start: which streams take it, and what is refused by name."""

import dataclasses
import math
import shutil

import flax.traverse_util
import jax.numpy as jnp
import numpy as np
import pytest

from lidit_jax.checkpoints.shapes import parameter_shapes
from lidit_jax.checkpoints.state import TrainState
from lidit_jax.config.schema import RefinerConfig
from lidit_jax.errors import LiditError
from lidit_jax.pytorch.hunyuan_refiner import ImportedRefiner, save_refiner
from lidit_jax.training.initialization import initialization_summary, initialize_from_run

WIDTH, HEADS, FEATURES = 32, 4, 24
LIKE_HUNYUAN = RefinerConfig(
    blocks=1, feature_norm="none", pool="prompt", pool_raw=True, own_time_embedder=True
)
SETTINGS = (
    "model.refiner.feature_norm=none",
    "model.refiner.pool=prompt",
    "model.refiner.pool_raw=true",
    "model.refiner.own_time_embedder=true",
)


def fresh(config, *feature_widths):
    """A state whose parameters are all 1, for encoders with features of these widths."""
    shapes = parameter_shapes(config.model, feature_widths, 3)
    flat = {path: jnp.ones(shape) for path, shape in shapes.items()}
    params = flax.traverse_util.unflatten_dict(flat, sep="/")
    zero = jnp.zeros((), jnp.int32)
    return TrainState(zero, zero, jnp.zeros(2, jnp.uint32), params, params, ())


@pytest.fixture(scope="module")
def folder(tiny_config, tmp_path_factory):
    """A trained refiner for features of width 24, as `lidit convert from-hf` leaves it."""
    config = tiny_config(*SETTINGS)
    params = fresh(config, FEATURES).params["linguistic_refiner_0"]
    flat = flax.traverse_util.flatten_dict(params)
    numbers = np.arange(sum(math.prod(leaf.shape) for leaf in flat.values()), dtype=np.float32)
    parts = np.split(numbers, np.cumsum([leaf.size for leaf in flat.values()])[:-1])
    filled = {
        path: part.reshape(leaf.shape)
        for (path, leaf), part in zip(flat.items(), parts, strict=True)
    }
    params = flax.traverse_util.unflatten_dict(filled)
    folder = tmp_path_factory.mktemp("refiner")
    save_refiner(ImportedRefiner(params, WIDTH, HEADS, FEATURES, LIKE_HUNYUAN), folder)
    return folder, params


@pytest.fixture(scope="module")
def configured(tiny_config, folder):
    """`configured("a.b=1")`: a run that starts from the refiner, with fields that fit it."""
    return lambda *changes: tiny_config(*SETTINGS, f"training.init_from={folder[0]}", *changes)


def same(tree, other):
    flat, expected = (flax.traverse_util.flatten_dict(t, sep="/") for t in (tree, other))
    assert flat.keys() == expected.keys()
    return all(np.array_equal(flat[path], expected[path]) for path in flat)


def test_streams_with_features_of_its_width_take_it_and_the_rest_starts_afresh(configured, folder):
    config = configured()
    state, missing = initialize_from_run(fresh(config, FEATURES, 16, FEATURES), config)
    for tree in (state.params, state.ema_params):
        assert same(tree["linguistic_refiner_0"], folder[1])
        assert same(tree["linguistic_refiner_2"], folder[1])
    assert (state.params["linguistic_refiner_1"]["projection"]["kernel"] == 1).all()
    assert (state.params["output"]["linear"]["kernel"] == 1).all()
    parts = {name.partition("/")[0] for name in missing}
    assert {"linguistic_refiner_1", "collaborative_refiner", "blocks", "output"} <= parts
    assert not parts & {"linguistic_refiner_0", "linguistic_refiner_2"}


def test_the_log_names_the_parts_that_start_afresh():
    assert (
        initialization_summary("refiner", []) == "weights from refiner; 0 parameters start afresh"
    )
    names = ["output/bias", "blocks/a", "blocks/b"]
    assert initialization_summary("refiner", names).endswith(
        "; 3 parameters start afresh, in blocks, output"
    )


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("model.refiner.feature_norm=rms", "set config.model.refiner.feature_norm='none'"),
        ("model.refiner.pool=all", "set config.model.refiner.pool='prompt'"),
        ("model.refiner.pool_raw=false", "set config.model.refiner.pool_raw=True"),
        ("model.refiner.own_time_embedder=false", "config.model.refiner.own_time_embedder=True"),
        ("model.refiner.blocks=2", "set config.model.refiner.blocks=1"),
        ("model.refiner.causal=true", "set config.model.refiner.causal=False"),
        ("model.heads=2", "set config.model.heads=4"),
        ("model.width=64", "set config.model.width=32"),
    ],
)
def test_a_refiner_that_computes_something_else_is_refused_with_the_fields(
    change, expected, configured
):
    config = configured(change)
    with pytest.raises(LiditError) as refusal:
        initialize_from_run(fresh(config, FEATURES), config)
    assert str(refusal.value).endswith(expected)


def test_several_fields_are_named_at_once(configured):
    config = configured("model.heads=2", "model.refiner.pool=all")
    expected = r"set config\.model\.heads=4, config\.model\.refiner\.pool='prompt'$"
    with pytest.raises(LiditError, match=expected):
        initialize_from_run(fresh(config, FEATURES), config)


def test_the_collaborative_refiner_is_free(configured):
    config = configured("model.refiner.collaborative_blocks=0")
    _, missing = initialize_from_run(fresh(config, FEATURES, FEATURES), config)
    assert not any(name.startswith("linguistic_refiner_") for name in missing)


def test_encoders_of_other_widths_are_named(configured):
    config = configured()
    expected = r"for features of width 24, those of config\.encoders\.sources have 16, 48: name an"
    with pytest.raises(LiditError, match=expected):
        initialize_from_run(fresh(config, 16, 48), config)


def test_it_has_no_moments(configured):
    config = configured("training.init_optimizer=true")
    with pytest.raises(LiditError, match="has weights alone; name a workdir in"):
        initialize_from_run(fresh(config, FEATURES), config)


def test_a_damaged_one_is_named(configured, folder, tmp_path):
    shutil.copytree(folder[0], tmp_path, dirs_exist_ok=True)
    file = tmp_path / "refiner.safetensors"
    file.write_bytes(file.read_bytes()[:-4])
    config = configured()
    training = dataclasses.replace(config.training, init_from=str(tmp_path))
    config = dataclasses.replace(config, training=training)
    with pytest.raises(LiditError, match=r"refiner\.safetensors is damaged: copy the folder again"):
        initialize_from_run(fresh(config, FEATURES), config)
