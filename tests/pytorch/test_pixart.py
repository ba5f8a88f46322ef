"""A whole PixArt pipeline of diffusers, imported, draws the same picture."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from lidit_jax.checkpoints.opener import open_model
from lidit_jax.checkpoints.shapes import check_shapes
from lidit_jax.cli import main
from lidit_jax.errors import LiditError
from lidit_jax.pytorch import pixart
from lidit_jax.pytorch.pixart import PixArtSource, import_pixart

from .tiny_pixart import picture, psnr, rewrite, save_pipeline

PROMPT, SEED = "A small Cactus with a happy face in the desert", 3
WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The folder of a pipeline."""
    return save_pipeline(tmp_path_factory.mktemp("pixart"))


@pytest.fixture
def source(saved, tmp_path):
    """A copy of the folder to damage, and an empty one for the result."""
    shutil.copytree(saved, tmp_path / "source")
    (tmp_path / "out").mkdir()
    return tmp_path / "source"


def convert(folder, out):
    return import_pixart(PixArtSource(str(folder)), out)


@pytest.fixture(scope="module")
def imported(saved, tmp_path_factory):
    out = tmp_path_factory.mktemp("imported") / "bundle"
    options = ["--dtype=float32", "--encoder-dtype=float32"]
    assert main(["convert", "from-hf", "pixart", str(saved), str(out), *options]) == 0
    return out


@pytest.mark.numeric
def test_draws_the_picture_of_diffusers(imported, tmp_path):
    """Its 20 steps, guidance, prompt encoder and VAE, in float32: PSNR of 45 dB or more."""
    file = tmp_path / "ours.png"
    options = ["--prompt", PROMPT, f"--seed={SEED}", f"--out={file}"]
    assert main(["sample", f"--checkpoint={imported}", *options]) == 0
    ours, theirs = np.asarray(Image.open(file)), picture(PROMPT, SEED)
    assert ours.shape == theirs.shape == (64, 64, 3)
    assert theirs.std() > 20, "it is a picture"
    assert psnr(ours, theirs) >= 45


def test_the_bundle_says_what_the_pipeline_is(imported, saved):
    model = open_model(imported)
    check_shapes(model)
    config, provenance = model.config, model.provenance
    assert config.encoders.sources == (str(saved),)
    assert (config.encoders.instruction, config.encoders.layers) == ("", (-1,))
    assert config.encoders.max_prompt_tokens == 299
    assert (config.data.image_size, config.latent_shape) == (64, (32, 32, 4))
    assert (config.sampling.sampler, config.sampling.spacing) == ("dpm++2m", "linspace")
    assert (provenance.latent_mean, provenance.latent_std) == ((0.0,) * 4, (1.0,) * 4)
    assert provenance.prefix_lengths == (0,)


def test_a_transformer_alone_takes_the_rest_from_a_pipeline(source, tmp_path):
    out, alone = tmp_path / "out", tmp_path / "alone"
    (source / "transformer").rename(alone)
    parts = PixArtSource(str(alone))
    with pytest.raises(LiditError, match=r"alone has no model_index.json.*by --pipeline"):
        import_pixart(parts, out)
    config = import_pixart(PixArtSource(str(alone), str(source)), out)
    assert (config.model.depth, config.vae.source) == (2, str(source))


def test_the_empty_caption_s_features_are_not_read(source, tmp_path):
    feature = {"caption_projection.y_embedding": np.zeros((120, 10), np.float32)}
    rewrite(source / WEIGHTS, lambda tensors: tensors.update(feature))
    convert(source, tmp_path / "out")
    assert (tmp_path / "out" / "config.json").is_file()


def test_half_precision_weights_are_read(source, tmp_path):
    file = source / WEIGHTS
    rewrite(file, lambda t: t.update({n: v.astype(np.float16) for n, v in t.items()}))
    convert(source, tmp_path / "out")
    bias = open_model(tmp_path / "out").read("output/table")
    assert bias.dtype == np.float32


def _drop(tensors):
    del tensors["proj_out.bias"]


def _add(tensors):
    tensors["fuser.weight"] = np.zeros(3, np.float32)


def _reshape(tensors):
    tensors["proj_out.bias"] = np.zeros(3, np.float32)


def _quantize(tensors):
    tensors["proj_out.weight"] = tensors["proj_out.weight"].astype(np.int8)


def _break(tensors):
    tensors["proj_out.bias"][0] = np.nan


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_drop, "1 missing: proj_out.bias"),
        (_add, "1 unexpected: fuser.weight"),
        (_reshape, r"proj_out.bias is \[3\], not \[32\]"),
        (_quantize, "proj_out.weight is I8, not a float"),
        (_break, "output/linear/bias has values that are not finite"),
    ],
)
def test_tensors_that_do_not_fit_are_named_and_nothing_is_left(change, message, source, tmp_path):
    rewrite(source / WEIGHTS, change)
    with pytest.raises(LiditError, match=message):
        convert(source, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_pickled_text_encoder_is_refused_with_the_remedy(source, tmp_path):
    (source / "text_encoder" / "model.safetensors").rename(
        source / "text_encoder" / "pytorch_model.bin"
    )
    with pytest.raises(LiditError, match=r"pickled weights only.*safetensors by --encoder"):
        import_pixart(PixArtSource(str(source)), tmp_path / "out")


def test_parts_of_different_models_are_refused(source, tmp_path):
    file = source / "text_encoder" / "config.json"
    other = save_other_encoder(tmp_path / "other", file)
    parts = PixArtSource(str(source), encoder=str(other))
    with pytest.raises(LiditError, match="caption_channels=10 does not fit its text encoder's"):
        import_pixart(parts, tmp_path / "out")


def save_other_encoder(folder, like):
    """A T5 of another width."""
    import transformers

    sizes = json.loads(like.read_text()) | {"d_model": 12}
    transformers.T5EncoderModel(transformers.T5Config(**sizes)).save_pretrained(folder)
    shutil.copytree(like.parents[1] / "tokenizer", folder, dirs_exist_ok=True)
    return folder


def test_a_folder_with_files_and_a_source_that_does_not_exist_are_refused(source, tmp_path):
    with pytest.raises(LiditError, match="is not empty: name a new folder"):
        convert(source, source)
    with pytest.raises(LiditError, match="neither a folder nor a hub id"):
        convert(tmp_path / "nowhere", tmp_path / "out")
    (source / "transformer" / "config.json").unlink()
    with pytest.raises(LiditError, match=r"has no transformer/config\.json"):
        convert(source, tmp_path / "out")


def test_of_a_hub_id_only_safetensors_and_settings_are_downloaded(source, tmp_path, monkeypatch):
    asked = {}

    def download(hub_id, patterns):
        asked.setdefault(hub_id, []).extend(patterns)
        return source

    monkeypatch.setattr(pixart, "download", download)
    monkeypatch.setattr("lidit_jax.autoencoders.diffusers_layout.download", download)
    monkeypatch.setattr("lidit_jax.encoders.locations.download", download)
    config = import_pixart(PixArtSource("owner/name"), tmp_path / "out")
    assert config.encoders.sources == (config.vae.source,) == ("owner/name",)
    assert set(asked) == {"owner/name"}
    kinds = {name.rpartition(".")[2] for name in asked["owner/name"]}
    assert kinds == {"json", "safetensors", "model", "txt"}
