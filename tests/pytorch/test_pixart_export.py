"""`lidit convert to-hf pixart`: diffusers reads what it writes, or it says what differs."""

import dataclasses
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from diffusers import PixArtTransformer2DModel
from safetensors import safe_open
from safetensors.numpy import load_file

from lidit_jax.checkpoints.bundle import save_bundle
from lidit_jax.checkpoints.provenance import Provenance
from lidit_jax.cli import main
from lidit_jax.config.checks import check
from lidit_jax.config.data_config import DataConfig
from lidit_jax.config.schema import Config, EncoderConfig, ModelConfig
from lidit_jax.models import LIDiT
from lidit_jax.pytorch.pixart_config import read_transformer
from lidit_jax.pytorch.pixart_layout import from_pixart
from lidit_jax.weights.parameter_paths import by_path

from ..quick import random_parameters
from .test_model import apply
from .tiny_pixart import TINY, inputs, predict, save_pipeline

MODEL = read_transformer(
    {
        "_class_name": "PixArtTransformer2DModel",
        **TINY,
        "in_channels": 3,
        "out_channels": 6,
        "sample_size": 8,
        "interpolation_scale": 4 / 3,
        "use_additional_conditions": True,
    },
    Path("config.json"),
    1,
    "float32",
).model
CONFIG = Config(
    model=MODEL,
    encoders=EncoderConfig(sources=("t5",), instruction="", lowercase=True),
    data=DataConfig(image_size=8),
)
PROVENANCE = Provenance(
    encoders=({"source": "t5", "layer": -1, "fingerprint": {}, "prefix": []},),
    prefix_lengths=(0,),
    autoencoder="pixels",
    latent_mean=(0.0,) * 3,
    latent_std=(1.0,) * 3,
)


# A picture that is not square; times whose angles float32 rounds at 2e-6.
GIVEN = dataclasses.replace(
    inputs(size=(4, 8), channels=3), times=np.array([2.0, 30.0], np.float32)
)
ARGUMENTS = (GIVEN.latents, GIVEN.times, (GIVEN.features,), (GIVEN.mask,), (0,))


@pytest.fixture(scope="module")
def params():
    """Random parameters with one modulation kernel for all blocks."""
    params = random_parameters(LIDiT(MODEL).init, *ARGUMENTS)
    linear = params["blocks"]["modulation"]["linear"]
    linear["kernel"] = jnp.broadcast_to(linear["kernel"][:1], linear["kernel"].shape)
    return params


@pytest.fixture(scope="module")
def bundle(params, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundle")
    save_bundle(folder, params, check(CONFIG), PROVENANCE, "float32")
    return folder


@pytest.mark.numeric
def test_diffusers_computes_the_same_from_it(bundle, params, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["convert", "to-hf", "pixart", str(bundle), str(out)]) == 0
    assert "PixArtTransformer2DModel.from_pretrained" in capsys.readouterr().out
    theirs = PixArtTransformer2DModel.from_pretrained(out, use_safetensors=True)
    assert (theirs.config.sample_size, theirs.config.out_channels) == (8, 3)
    expected = predict(theirs, GIVEN, downsample=1)
    error = np.abs(apply(LIDiT(MODEL), params, ARGUMENTS) - expected).max()
    assert error < 1e-5 * np.sqrt(np.mean(np.square(expected)))


def test_reading_it_back_gives_the_same_parameters(bundle, params, tmp_path):
    out = tmp_path / "out"
    assert main(["convert", "to-hf", "pixart", str(bundle), str(out)]) == 0
    theirs = load_file(out / "diffusion_pytorch_model.safetensors")
    for path, leaf in by_path(params).items():
        pieces = list(from_pixart(path, theirs, MODEL, channels=3))
        back = np.stack(pieces) if path.startswith("blocks/") else pieces[0]
        np.testing.assert_array_equal(back, leaf, err_msg=path)


def changed(config: ModelConfig = MODEL, **changes) -> Config:
    return dataclasses.replace(CONFIG, model=dataclasses.replace(config, **changes))


OTHER_MODELS = {
    "QK-norm": (changed(qk_norm=True), PROVENANCE, "config.model.qk_norm=True, not False"),
    "position": (
        changed(position="conv+sincos"),
        PROVENANCE,
        "config.model.position='conv+sincos', not 'sincos'",
    ),
    "one position per token": (
        changed(sincos_extent=0.0),
        PROVENANCE,
        "config.model.sincos_extent=0.0, not 4.0",
    ),
    "refiner": (
        changed(refiner=dataclasses.replace(MODEL.refiner, blocks=1)),
        PROVENANCE,
        "config.model.refiner.blocks=1, not 0",
    ),
    "latents": (
        CONFIG,
        dataclasses.replace(PROVENANCE, latent_std=(0.5, 1.0, 1.0)),
        "latents normalized by the statistics of its training data",
    ),
    "instruction": (
        CONFIG,
        dataclasses.replace(PROVENANCE, prefix_lengths=(7,)),
        "an instruction before every prompt (config.encoders.instruction)",
    ),
    "case": (
        dataclasses.replace(CONFIG, encoders=dataclasses.replace(CONFIG.encoders, lowercase=False)),
        PROVENANCE,
        "prompts that are not turned into lower case (config.encoders.lowercase)",
    ),
    "layer": (
        CONFIG,
        dataclasses.replace(PROVENANCE, encoders=({**PROVENANCE.encoders[0], "layer": -2},)),
        "another layer of its text encoder than the last (config.encoders.layers)",
    ),
    "layers": (
        CONFIG,
        dataclasses.replace(PROVENANCE, encoders=({**PROVENANCE.encoders[0], "layer": [1, 2]},)),
        "several layers of its text encoder (config.encoders.layers)",
    ),
    "streams": (
        CONFIG,
        dataclasses.replace(PROVENANCE, encoders=PROVENANCE.encoders * 2, prefix_lengths=(0, 0)),
        "2 text encoders, not 1",
    ),
}


@pytest.mark.parametrize("name", OTHER_MODELS)
def test_a_model_of_another_form_is_refused_by_what_differs(name, tmp_path, capsys):
    config, provenance, message = OTHER_MODELS[name]
    x_t, t, *text = ARGUMENTS
    streams = (part * len(provenance.encoders) for part in text)
    params = random_parameters(LIDiT(config.model).init, x_t, t, *streams)
    save_bundle(tmp_path / "bundle", params, config, provenance, "float32")
    out = tmp_path / "out"
    assert main(["convert", "to-hf", "pixart", str(tmp_path / "bundle"), str(out)]) == 2
    error = capsys.readouterr().err
    assert f"because of {message}: convert it with `lidit convert to-torch`" in error
    assert not out.exists()


def test_modulations_trained_apart_are_refused(params, tmp_path, capsys):
    kernel = params["blocks"]["modulation"]["linear"]["kernel"]
    apart = jax.tree.map(lambda leaf: leaf.at[1, 0, 0].add(1) if leaf is kernel else leaf, params)
    save_bundle(tmp_path / "bundle", apart, CONFIG, PROVENANCE, "float32")
    out = tmp_path / "out"
    assert main(["convert", "to-hf", "pixart", str(tmp_path / "bundle"), str(out)]) == 2
    assert "blocks/modulation/linear/kernel differs between the blocks" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize("direction", [("to-hf", "pixart"), ("to-torch",)])
@pytest.mark.parametrize(
    ("place", "message"),
    [("", "is the folder to read"), ("new", "is inside the folder"), ("..", "contains the folder")],
)
def test_what_is_read_is_not_written_over(direction, place, message, bundle, tmp_path, capsys):
    source = shutil.copytree(bundle, tmp_path / "around" / "model")
    before = {file.name: file.read_bytes() for file in source.iterdir()}
    assert main(["convert", *direction, str(source), str(source / place)]) == 2
    assert message in (error := capsys.readouterr().err)
    assert "name another one" in error
    assert {file.name: file.read_bytes() for file in source.iterdir()} == before
    assert list(source.parent.iterdir()) == [source]


def test_half_precision_is_stored_as_such(bundle, tmp_path):
    out = tmp_path / "out"
    assert main(["convert", "to-hf", "pixart", str(bundle), str(out), "--dtype=bfloat16"]) == 0
    with safe_open(out / "diffusion_pytorch_model.safetensors", "np") as file:
        kinds = {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
    assert kinds == {"BF16"}


@pytest.mark.numeric
def test_an_imported_transformer_goes_back(tmp_path):
    """But for the variance, which the import drops, and the sum of two biases."""
    pipeline = save_pipeline(tmp_path / "pipeline")
    bundle, out = str(tmp_path / "bundle"), tmp_path / "out"
    assert main(["convert", "from-hf", "pixart", str(pipeline), bundle]) == 0
    assert main(["convert", "to-hf", "pixart", bundle, str(out)]) == 0
    before, after = (
        PixArtTransformer2DModel.from_pretrained(folder)
        for folder in (pipeline / "transformer", out)
    )
    for name in ("sample_size", "interpolation_scale", "in_channels", "caption_channels"):
        assert after.config[name] == before.config[name]
    expected = predict(before, inputs())
    np.testing.assert_allclose(
        predict(after, inputs()), expected, rtol=0, atol=1e-5 * expected.std()
    )
