"""AutoencoderKL and AutoencoderTiny against diffusers', in float32, with random weights.

FLUX's autoencoder is SD3's with another shift and scale.
"""

import dataclasses
import json
import shutil

import diffusers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from lidit_jax.autoencoders import diffusers_layout
from lidit_jax.autoencoders.frozen import (
    autoencoder_files,
    load_frozen_autoencoder,
    locate_autoencoder,
)
from lidit_jax.autoencoders.kl import PixelAttention
from lidit_jax.config.schema import VAEConfig
from lidit_jax.errors import LiditError
from tests.numerics import assert_close, rounding
from tests.quick import random_parameters

TOLERANCE = 1e-4
"""Largest difference, over the rms of the reference."""
SIZE = (40, 24)
"""Odd multiples of the downsampling: an asymmetric padding on the wrong side would show."""


def kl(**changes):
    """diffusers' autoencoder, Stable Diffusion's layout at small widths."""
    stages = changes.get("block_out_channels", (32, 64, 64, 64))
    settings = {
        "block_out_channels": stages,
        "down_block_types": ("DownEncoderBlock2D",) * len(stages),
        "up_block_types": ("UpDecoderBlock2D",) * len(stages),
        "layers_per_block": 1,
        "latent_channels": 4,
    }
    return diffusers.AutoencoderKL(**(settings | changes))


def tiny(**changes):
    settings = {"encoder_block_out_channels": (16,) * 4, "decoder_block_out_channels": (16,) * 4}
    return diffusers.AutoencoderTiny(**(settings | changes))


SD3 = {"latent_channels": 16, "use_quant_conv": False, "use_post_quant_conv": False}
MODELS = {
    "SD": lambda: kl(),
    "SDXL": lambda: kl(layers_per_block=2, scaling_factor=0.13025),
    "SD3": lambda: kl(**SD3, scaling_factor=1.5305, shift_factor=0.0609),
    "no attention, 16 groups": lambda: kl(
        **SD3, block_out_channels=(32, 48), norm_num_groups=16, mid_block_add_attention=False
    ),
    "moments of each channel": lambda: kl(
        latents_mean=(-0.1, 0.2, 0.3, 0.0), latents_std=(1.5, 0.5, 2.0, 1.0), scaling_factor=0.5
    ),
    "TAESD": lambda: tiny(),
    "TAEF1": lambda: tiny(latent_channels=16),
    "tiny, scaled": lambda: tiny(
        num_encoder_blocks=(1, 2, 1, 1),
        num_decoder_blocks=(2, 1, 1, 1),
        scaling_factor=0.7,
        shift_factor=0.2,
    ),
}


def random_model(build, seed=0):
    """With weights as after training: norms off one, biases off zero, larger kernels."""
    torch.manual_seed(seed)
    model = build().eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            parameter.mul_(1.5)
        elif "norm" in name and name.endswith("weight"):
            parameter.add_(0.3 * torch.randn_like(parameter))
        else:
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


@pytest.fixture(scope="module", params=MODELS)
def saved(request, tmp_path_factory):
    """A model of diffusers, and the folder that it wrote."""
    model = random_model(MODELS[request.param])
    folder = tmp_path_factory.mktemp("vae")
    model.save_pretrained(folder)
    return model, folder


@pytest.fixture(scope="module")
def sd3_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sd3")
    random_model(MODELS["SD3"]).save_pretrained(folder)
    return folder


def images(count=2, size=SIZE):
    values = np.random.default_rng(0).uniform(-1, 1, size=(count, *size, 3))
    return values.astype(np.float32)


def to_torch(array):
    return torch.from_numpy(np.array(array)).permute(0, 3, 1, 2)


def to_numpy(tensor):
    return tensor.permute(0, 2, 3, 1).numpy()


def shift_and_scale(config):
    """As diffusers' pipelines apply them to the latents of NHWC arrays."""
    if config.get("latents_mean"):
        return np.array(config.latents_mean), config.scaling_factor / np.array(config.latents_std)
    return config.get("shift_factor") or 0.0, config.scaling_factor


def their_latent(model, image):
    encoded = model.encode(to_torch(image))
    z = encoded.latents if hasattr(encoded, "latents") else encoded.latent_dist.mode()
    shift, scale = shift_and_scale(model.config)
    return (to_numpy(z) - shift) * scale


def their_image(model, latent):
    shift, scale = shift_and_scale(model.config)
    return to_numpy(model.decode(to_torch((latent / scale + shift).astype(np.float32))).sample)


def run(model, params, method, *arguments):
    return jax.jit(lambda p, *a: model.apply({"params": p}, *a, method=method))(params, *arguments)


def error(ours, theirs):
    return np.abs(np.asarray(ours) - theirs).max() / np.sqrt(np.mean(np.square(theirs)))


@pytest.mark.numeric
def test_encode_and_decode_are_diffusers(saved):
    theirs, folder = saved
    ours, params, _ = diffusers_layout.load(folder)
    latent = their_latent(theirs, images())
    assert latent.std() > 0.01
    assert error(run(ours, params, "encode", images()), latent) <= TOLERANCE
    noise = np.random.default_rng(1).normal(size=latent.shape) * latent.std() + latent.mean()
    decoded = their_image(theirs, noise)
    assert decoded.std() > 0.01
    assert error(run(ours, params, "decode", noise.astype(np.float32)), decoded) <= TOLERANCE


@pytest.mark.parametrize("name", ["SD3", "TAEF1"])
def test_bfloat16_stays_near(name, tmp_path):
    """Within 3% of the rms, as a mean; single values may be further off."""
    random_model(MODELS[name]).save_pretrained(tmp_path)
    exact, params, _ = diffusers_layout.load(tmp_path)
    half = exact.clone(dtype=jnp.bfloat16)
    latent = run(exact, params, "encode", images())
    for method, argument in (("encode", images()), ("decode", latent)):
        expected, got = (run(model, params, method, argument) for model in (exact, half))
        assert got.dtype == jnp.float32
        rms = jnp.sqrt(jnp.mean(jnp.square(expected)))
        assert jnp.sqrt(jnp.mean(jnp.square(got - expected))) <= 0.03 * rms
        assert jnp.abs(got - expected).max() > 0, "it did compute in bfloat16"


@pytest.mark.numeric
def test_the_posterior_samples_as_its_moments_say(sd3_folder):
    ours, params, _ = diffusers_layout.load(sd3_folder)
    posterior = run(ours, params, "posterior", images(1))
    theirs = diffusers.AutoencoderKL.from_pretrained(sd3_folder).encode(to_torch(images(1)))
    assert error(posterior.log_variance, to_numpy(theirs.latent_dist.logvar.detach())) <= TOLERANCE
    per_value = theirs.latent_dist.kl().item() / posterior.mean.size
    np.testing.assert_allclose(posterior.kl(), [per_value], rtol=1e-4)
    many = jax.tree.map(lambda leaf: jnp.repeat(leaf, 2000, axis=0), posterior)
    samples = many.sample(jax.random.split(jax.random.key(0), 2000))
    deviation = np.exp(0.5 * np.asarray(posterior.log_variance[0]))
    np.testing.assert_allclose(
        (samples.mean(0) - posterior.mean[0]) / deviation, 0, atol=5 / np.sqrt(2000)
    )
    np.testing.assert_allclose(samples.std(0) / deviation, 1, atol=0.1)


@pytest.mark.numeric
def test_attention_in_parts_is_the_attention_at_once(monkeypatch):
    attention = PixelAttention(4, jnp.float32)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 7, 9, 8)), jnp.float32)
    params = random_parameters(attention.init, x)
    at_once = attention.apply({"params": params}, x)
    monkeypatch.setattr("lidit_jax.autoencoders.kl._QUERIES_AT_ONCE", 10)
    assert_close(attention.apply({"params": params}, x), at_once, rounding(terms=63, sums=4))


def test_files_from_before_the_attention_was_renamed(sd3_folder, tmp_path):
    """Stable Diffusion 1.5 and its fine-tunes: query, key, value, proj_attn."""
    tensors = load_file(sd3_folder / "diffusion_pytorch_model.safetensors")
    former = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    for now, before in former.items():
        tensors = {name.replace(f".{now}.", f".{before}."): t for name, t in tensors.items()}
    assert any("proj_attn" in name for name in tensors)
    save_file(tensors, tmp_path / "diffusion_pytorch_model.safetensors")
    (tmp_path / "config.json").write_bytes((sd3_folder / "config.json").read_bytes())
    (_, expected, _), (_, params, _) = (diffusers_layout.load(f) for f in (sd3_folder, tmp_path))
    jax.tree.map(np.testing.assert_array_equal, params, expected)


def test_written_in_diffusers_layout_it_is_the_same_there(sd3_folder, tmp_path):
    ours, params, _ = diffusers_layout.load(sd3_folder)
    diffusers_layout.save(tmp_path, ours, params)
    again, same, _ = diffusers_layout.load(tmp_path)
    assert again == ours
    jax.tree.map(np.testing.assert_array_equal, same, params)
    before, after = (diffusers.AutoencoderKL.from_pretrained(f) for f in (sd3_folder, tmp_path))
    for name, tensor in before.state_dict().items():
        torch.testing.assert_close(after.state_dict()[name], tensor, rtol=0, atol=0)
    for field in ("scaling_factor", "shift_factor", "block_out_channels", "use_quant_conv"):
        assert after.config[field] == before.config[field]


@pytest.mark.numeric
def test_a_frozen_autoencoder_finds_the_autoencoder_of_a_pipeline(sd3_folder, tmp_path):
    (tmp_path / "vae").symlink_to(sd3_folder)
    pipeline, plain = (
        load_frozen_autoencoder(VAEConfig(source=str(f))) for f in (tmp_path, sd3_folder)
    )
    assert pipeline.fingerprint == plain.fingerprint
    assert (pipeline.channels, pipeline.downsample) == (16, 8)
    pictures = np.random.default_rng(0).integers(0, 256, (2, *SIZE, 3), np.uint8)
    latents = pipeline.encode_images(pictures)
    theirs = diffusers.AutoencoderKL.from_pretrained(sd3_folder).requires_grad_(False)
    assert error(latents, their_latent(theirs, pictures / np.float32(127.5) - 1)) <= TOLERANCE
    decoded = pipeline.decode(pipeline.params, latents)
    assert error(decoded, their_image(theirs, latents).clip(-1, 1)) <= TOLERANCE


def test_a_hub_id_downloads_the_autoencoder_and_nothing_else(monkeypatch, sd3_folder, tmp_path):
    import huggingface_hub

    asked = {}

    def snapshot(hub_id, allow_patterns):
        asked[hub_id] = allow_patterns
        return str(tmp_path)

    (tmp_path / "vae").symlink_to(sd3_folder)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    autoencoder = load_frozen_autoencoder(
        VAEConfig(source="stabilityai/stable-diffusion-3-medium-diffusers")
    )
    assert autoencoder.channels == 16
    (patterns,) = asked.values()
    assert sorted(patterns) == sorted(
        folder + file
        for folder in ("", "vae/")
        for file in ("config.json", "diffusion_pytorch_model.safetensors")
    )


def test_a_copy_of_its_two_files_is_the_same_autoencoder(sd3_folder, tmp_path):
    """What `lidit export` puts beside a text-to-image model, and all that loading needs."""
    config = VAEConfig(source=str(sd3_folder))
    for file in autoencoder_files(locate_autoencoder(config.source)):
        shutil.copy2(file, tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "config.json",
        "diffusion_pytorch_model.safetensors",
    ]
    moved = dataclasses.replace(config, source="moved")
    assert (
        load_frozen_autoencoder(moved, tmp_path).fingerprint
        == load_frozen_autoencoder(config).fingerprint
    )


def test_the_fingerprint_names_weights_and_scale(sd3_folder, tmp_path):
    config = json.loads((sd3_folder / "config.json").read_text())
    weights = (sd3_folder / "diffusion_pytorch_model.safetensors").read_bytes()
    (tmp_path / "diffusion_pytorch_model.safetensors").write_bytes(weights)
    fingerprints = set()
    for changes in ({}, {"_diffusers_version": "9"}, {"scaling_factor": 2.0}):
        (tmp_path / "config.json").write_text(json.dumps(config | changes))
        fingerprints.add(diffusers_layout.load(tmp_path)[2])
    assert len(fingerprints) == 2


class TestTampered:
    """A folder that is not what it says: one line that names the file and the remedy."""

    @pytest.fixture
    def folder(self, sd3_folder, tmp_path):
        for file in sd3_folder.iterdir():
            (tmp_path / file.name).write_bytes(file.read_bytes())
        return tmp_path

    def refusal(self, folder):
        with pytest.raises(LiditError) as raised:
            load_frozen_autoencoder(VAEConfig(source=str(folder)))
        assert "\n" not in str(raised.value)
        return str(raised.value)

    def change(self, folder, **tensors):
        file = folder / "diffusion_pytorch_model.safetensors"
        saved = load_file(file) | tensors
        save_file({name: t for name, t in saved.items() if t is not None}, file)

    def configure(self, folder, **fields):
        config = json.loads((folder / "config.json").read_text()) | fields
        (folder / "config.json").write_text(json.dumps(config))

    @pytest.mark.parametrize("kept", [0, 100, -1])
    def test_truncated_weights(self, folder, kept):
        file = folder / "diffusion_pytorch_model.safetensors"
        file.write_bytes(file.read_bytes()[:kept])
        assert f"{file} is truncated or damaged" in self.refusal(folder)

    def test_tensors_that_do_not_fit(self, folder):
        self.change(
            folder,
            **{
                "encoder.conv_in.weight": None,
                "decoder.conv_out.weight": np.zeros((3, 3, 3, 3), np.float32),
                "surprise": np.zeros(1, np.float32),
            },
        )
        message = self.refusal(folder)
        assert "1 missing: encoder/conv_in/kernel" in message
        assert "1 unexpected: surprise" in message
        assert "decoder.conv_out.weight is [3, 3, 3, 3], not [3, 32, 3, 3]" in message

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_weights_that_are_not_finite(self, folder, value):
        self.change(folder, **{"encoder.conv_in.bias": np.full(32, value, np.float32)})
        assert "holds NaN or infinity in 1 tensors (encoder.conv_in.bias)" in self.refusal(folder)

    def test_pickled_weights(self, folder):
        file = folder / "diffusion_pytorch_model.safetensors"
        file.rename(folder / "diffusion_pytorch_model.bin")
        assert "pickled weights are never opened" in self.refusal(folder)

    def test_a_config_that_is_no_json(self, folder):
        (folder / "config.json").write_text("{")
        assert "config.json is not valid JSON" in self.refusal(folder)

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"_class_name": "AutoencoderDC"}, "class 'AutoencoderDC' is not supported, only"),
            ({"act_fn": "gelu"}, "act_fn='gelu' is not supported, only 'silu'"),
            ({"in_channels": 4}, "in_channels=4 is not supported, only 3"),
            ({"block_out_channels": "wide"}, "is not valid (ValueError"),
            ({"up_block_types": ["AttnUpDecoderBlock2D"] * 4}, "must be UpDecoderBlock2D"),
            ({"norm_num_groups": 24}, "norm_num_groups must divide"),
            ({"scaling_factor": None}, "is not valid (TypeError"),
            ({"block_out_channels": [32, 32, 64, 64]}, "does not fit its config.json"),
        ],
    )
    def test_a_config_that_means_something_else(self, folder, fields, message):
        self.configure(folder, **fields)
        assert message in self.refusal(folder)
