"""Tiny random PixArt models of diffusers, whose zero-initialized tensors are random too."""

import dataclasses

import numpy as np
import torch
from diffusers import PixArtTransformer2DModel
from safetensors.numpy import save_file

WIDTHS = {"num_attention_heads": 2, "attention_head_dim": 12, "cross_attention_dim": 24}
TINY = WIDTHS | {"num_layers": 2, "caption_channels": 10, "in_channels": 4, "out_channels": 8}

PUBLISHED = {
    "alpha-256": {"sample_size": 32, "use_additional_conditions": False},
    "alpha-512": {"sample_size": 64, "use_additional_conditions": False},
    "alpha-1024": {"sample_size": 128},
    "sigma-256": {"sample_size": 32, "interpolation_scale": 0.5},
    "sigma-512": {"sample_size": 64, "interpolation_scale": 1},
    "sigma-1024": {
        "sample_size": 128,
        "interpolation_scale": 2,
        "use_additional_conditions": False,
    },
    "sigma-2048": {"sample_size": 256, "interpolation_scale": 4},
}
"""Options of every published transformer beside its widths and depth, which they all share."""


def random_(module, seed=0):
    """Fill every parameter with random values that keep activations near 1."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in module.parameters():
            fan_in = tensor[0].numel() if tensor.ndim > 1 else 10
            tensor.copy_(torch.randn(tensor.shape, generator=generator) / fan_in**0.5)
    return module


def transformer(**options):
    """A random transformer in evaluation mode."""
    return random_(PixArtTransformer2DModel(**(TINY | options))).eval()


@dataclasses.dataclass(frozen=True)
class Inputs:
    """A batch of two, in this package's layout: latents NHWC, padding on the right."""

    latents: np.ndarray
    times: np.ndarray
    features: np.ndarray
    mask: np.ndarray


def inputs(features=10, size=(6, 10), channels=4):
    rng = np.random.default_rng(0)
    return Inputs(
        latents=rng.normal(size=(2, *size, channels)).astype(np.float32),
        times=np.array([17.0, 801.0], np.float32),
        features=rng.normal(size=(2, 7, features)).astype(np.float32),
        mask=np.arange(7) < np.array([[3], [7]]),
    )


def predict(model, given, downsample=8):
    """The noise that diffusers predicts, NHWC, without the variance."""
    rows, columns = (downsample * side for side in given.latents.shape[1:3])
    added = {
        "resolution": torch.tensor([[rows, columns]] * 2, dtype=torch.float32),
        "aspect_ratio": torch.tensor([[rows / columns]] * 2, dtype=torch.float32),
    }
    sized = model.use_additional_conditions
    with torch.no_grad():
        out = model(
            torch.from_numpy(given.latents).permute(0, 3, 1, 2),
            encoder_hidden_states=torch.from_numpy(given.features),
            encoder_attention_mask=torch.from_numpy(given.mask.astype(np.float32)),
            timestep=torch.from_numpy(given.times),
            added_cond_kwargs=added if sized else {"resolution": None, "aspect_ratio": None},
            return_dict=False,
        )[0]
    return out[:, : given.latents.shape[-1]].permute(0, 2, 3, 1).numpy()


def tensors(model):
    """The tensors of a saved transformer, by name."""
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}


def rewrite(file, change):
    """Change the tensors of a file, given as a dict by name."""
    from safetensors.numpy import load_file

    loaded = load_file(file)
    change(loaded)
    save_file(loaded, file)
