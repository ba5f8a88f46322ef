"""The autoencoders of an exported model decode as they do in JAX: float32, 1e-4."""

import dataclasses
import json
from types import SimpleNamespace

import diffusers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from lidit_jax.autoencoders.frozen import build_autoencoder, load_frozen_autoencoder
from lidit_jax.checkpoints.bundle import save_bundle
from lidit_jax.checkpoints.provenance import Provenance
from lidit_jax.config.schema import Config, TrainingConfig, VAEConfig
from lidit_jax.pytorch.export import MODULE, _export_autoencoder, module_source
from lidit_jax.pytorch.parity import load_module

from ..quick import random_parameters

pytestmark = pytest.mark.numeric

PATCH = VAEConfig(channels=4, downsample=8, patch=4, width=8, blocks=1)


def save_patch(folder):
    """One of `lidit train`, random."""
    inputs = jnp.zeros((1, 16, 16, 3)), jax.random.split(jax.random.key(0), 1)
    params = random_parameters(build_autoencoder(PATCH).init, *inputs)
    config = Config(vae=PATCH, training=TrainingConfig(task="vae"))
    save_bundle(folder, params, config, Provenance(), "float32")


def save_kl(folder):
    torch.manual_seed(0)
    sizes = {"block_out_channels": (8, 16), "norm_num_groups": 4, "latent_channels": 4}
    kinds = {
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
    }
    latents = {"shift_factor": 0.1, "scaling_factor": 0.4}
    diffusers.AutoencoderKL(**sizes, **kinds, **latents).save_pretrained(folder)


def save_tiny(folder):
    torch.manual_seed(0)
    widths = {f"{side}_block_out_channels": (8, 8) for side in ("encoder", "decoder")}
    blocks = {"num_encoder_blocks": (1, 1), "num_decoder_blocks": (1, 1)}
    diffusers.AutoencoderTiny(**widths, **blocks).save_pretrained(folder)


@pytest.mark.parametrize("save", [save_patch, save_kl, save_tiny])
def test_decodes_alike(save, tmp_path):
    save(tmp_path / "vae")
    config = dataclasses.replace(Config(), vae=VAEConfig(source=str(tmp_path / "vae")))
    out = tmp_path / "out"
    out.mkdir()
    described = _export_autoencoder(SimpleNamespace(config=config, folder=tmp_path / "run"), out)
    (out / MODULE).write_text(module_source())
    module = load_module(out / MODULE)
    if save is save_patch:
        decoder = module.PatchDecoder(out / "vae")
    else:
        settings = json.loads(json.dumps(described["autoencoder"]))
        decoder = module.DiffusersDecoder(out / "vae", SimpleNamespace(**settings))

    autoencoder = load_frozen_autoencoder(config.vae)
    assert (autoencoder.channels, autoencoder.downsample) == (
        described["channels"],
        described["downsample"],
    )
    shape = (2, 4, 6, autoencoder.channels)
    latent = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    ours = np.asarray(jax.jit(autoencoder.decode)(autoencoder.params, latent))
    with torch.no_grad():
        theirs = decoder(torch.from_numpy(latent)).clamp(-1, 1).numpy()
    assert np.std(theirs) > 0.01
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4)
