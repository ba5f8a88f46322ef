"""Read and write autoencoders in diffusers' layout: `config.json` and safetensors, or a hub id."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.linen as nn
import safetensors.numpy

from lidit_jax.autoencoders.kl import AutoencoderKL
from lidit_jax.autoencoders.latent_model import boxed_shapes
from lidit_jax.autoencoders.tables import diffusers_table, to_diffusers
from lidit_jax.autoencoders.tiny import TinyAutoencoder
from lidit_jax.errors import LiditError
from lidit_jax.io.output import atomic_file
from lidit_jax.weights.hub import download
from lidit_jax.weights.huggingface import load_params, read_json
from lidit_jax.weights.parameter_paths import by_path

CONFIG = "config.json"
_WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.fp16.safetensors")
_HUB_FILES = tuple(folder + file for folder in ("", "vae/") for file in (CONFIG, _WEIGHTS[0]))


def autoencoder_folder(folder: Path) -> Path | None:
    """Return the autoencoder's folder: `folder`, or a pipeline's `vae`; None if there is none."""
    for candidate in (folder, folder / "vae"):
        if (candidate / CONFIG).is_file() and "_class_name" in read_json(candidate / CONFIG):
            return candidate
    return None


def download_autoencoder(hub_id: str) -> Path:
    """Download only the autoencoder of a hub id, which may be a pipeline's, and return its folder.

    Raises:
      LiditError: when it cannot be downloaded, or is not an autoencoder.
    """
    folder = autoencoder_folder(download(hub_id, _HUB_FILES))
    if folder is None:
        raise LiditError(f"{hub_id} has no autoencoder in diffusers' layout, nor one in vae/")
    return folder


def weights_file(folder: Path) -> Path:
    """Return an autoencoder's safetensors file; half precision only if there is no other.

    Raises:
      LiditError: when there is none.
    """
    for name in _WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    raise LiditError(
        f"{folder} has no {_WEIGHTS[0]}: pickled weights are never opened, save the model with "
        "save_pretrained(..., safe_serialization=True)"
    )


def load(folder: Path) -> tuple[AutoencoderKL | TinyAutoencoder, dict[str, Any], str]:
    """Load an autoencoder, its parameters in float32, and their fingerprint.

    The fingerprint is a sha256 of the weights, and of the shift and scale of the latents.

    Args:
      folder: as `autoencoder_folder` returns it.

    Raises:
      LiditError: when a file is missing, damaged or of a kind that is not supported, when weights
        and configuration do not fit, or when a weight is not finite.
    """
    model, file = read_model(folder), weights_file(folder)
    leaves = by_path(nn.unbox(boxed_shapes(model)))
    shapes = {path: leaf.shape for path, leaf in leaves.items()}
    params = load_params([file], diffusers_table(shapes), shapes, "float32")
    with file.open("rb") as handle:
        digest = hashlib.file_digest(handle, "sha256").hexdigest()
    latents = f"{digest} {model.shift} {model.scale}"
    return model, params, hashlib.sha256(latents.encode()).hexdigest()


def save(folder: Path, model: AutoencoderKL, params: Any) -> None:
    """Write an autoencoder trained here in diffusers' layout, in float32.

    Args:
      folder: created if it does not exist.
      model: with one shift and one scale for all latent channels.
      params: its weights.
    """
    (shift,), (scale,) = model.shift, model.scale
    stages = len(model.stages)
    config = {
        "_class_name": "AutoencoderKL",
        **_IMAGES,
        "act_fn": "silu",
        "block_out_channels": list(model.stages),
        "down_block_types": ["DownEncoderBlock2D"] * stages,
        "up_block_types": ["UpDecoderBlock2D"] * stages,
        "latent_channels": model.channels,
        "layers_per_block": model.blocks,
        "norm_num_groups": model.norm_groups,
        "mid_block_add_attention": model.attention,
        "use_quant_conv": model.quant,
        "use_post_quant_conv": model.post_quant,
        "shift_factor": shift,
        "scaling_factor": scale,
    }
    folder.mkdir(parents=True, exist_ok=True)
    tensors = to_diffusers(by_path(params))
    with atomic_file(folder / _WEIGHTS[0]) as file:
        file.write(safetensors.numpy.save(tensors, metadata={"format": "pt"}))
    with atomic_file(folder / CONFIG) as file:
        file.write(json.dumps(config, indent=2).encode())


def read_model(folder: Path) -> AutoencoderKL | TinyAutoencoder:
    """Build the network that `config.json` describes.

    Raises:
      LiditError: when it is not supported or cannot be parsed.
    """
    config = read_json(folder / CONFIG)
    name = config.get("_class_name")
    if name not in _BUILDERS:
        raise LiditError(
            f"{folder / CONFIG}: class {name!r} is not supported, only {', '.join(_BUILDERS)}"
        )
    build, fixed = _BUILDERS[name]
    for field, allowed in (_IMAGES | fixed).items():
        if config.get(field, allowed) != allowed:
            raise LiditError(
                f"{folder / CONFIG}: {field}={config[field]!r} is not supported, only {allowed!r}"
            )
    try:
        return build(config)
    except (KeyError, TypeError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise LiditError(f"{folder / CONFIG} is not valid ({reason})") from error


def _build_kl(config: dict[str, Any]) -> AutoencoderKL:
    stages = tuple(int(width) for width in config["block_out_channels"])
    for side, kind in (("down", "DownEncoderBlock2D"), ("up", "UpDecoderBlock2D")):
        kinds = config.get(f"{side}_block_types", [kind] * len(stages))
        if list(kinds) != [kind] * len(stages):
            raise ValueError(f"{side}_block_types must be {kind} for each of block_out_channels")
    groups = int(config.get("norm_num_groups", 32))
    if not stages or any(width <= 0 or width % groups for width in stages):
        raise ValueError("norm_num_groups must divide each of block_out_channels")
    shift, scale = _shift_and_scale(config, 0.18215)
    return AutoencoderKL(
        stages=stages,
        channels=int(config.get("latent_channels", 4)),
        blocks=int(config.get("layers_per_block", 1)),
        norm_groups=groups,
        attention=bool(config.get("mid_block_add_attention", True)),
        quant=bool(config.get("use_quant_conv", True)),
        post_quant=bool(config.get("use_post_quant_conv", True)),
        shift=shift,
        scale=scale,
    )


def _build_tiny(config: dict[str, Any]) -> TinyAutoencoder:
    blocks = {}
    for side, default in (("encoder", (1, 3, 3, 3)), ("decoder", (3, 3, 3, 1))):
        blocks[side] = tuple(int(count) for count in config.get(f"num_{side}_blocks", default))
    widths = [
        *config.get("encoder_block_out_channels", [64] * len(blocks["encoder"])),
        *config.get("decoder_block_out_channels", [64] * len(blocks["decoder"])),
    ]
    if len(set(widths)) != 1 or 2 * len(blocks["encoder"]) != len(widths):
        raise ValueError("encoder and decoder must have as many stages, all of one width")
    shift, scale = _shift_and_scale(config, 1.0)
    return TinyAutoencoder(
        channels=int(config.get("latent_channels", 4)),
        width=int(widths[0]),
        encoder_blocks=blocks["encoder"],
        decoder_blocks=blocks["decoder"],
        shift=shift,
        scale=scale,
    )


def _shift_and_scale(
    config: dict[str, Any], default_scale: float
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return shift and scale of the latents, one for all channels or one per channel."""
    factor = float(config.get("scaling_factor", default_scale))
    mean, std = config.get("latents_mean"), config.get("latents_std")
    if mean and std:
        return tuple(map(float, mean)), tuple(factor / float(value) for value in std)
    return (float(config.get("shift_factor") or 0.0),), (factor,)


_IMAGES = {"in_channels": 3, "out_channels": 3}
_BUILDERS: dict[str, tuple[Callable[[dict[str, Any]], Any], dict[str, Any]]] = {
    "AutoencoderKL": (_build_kl, {"act_fn": "silu"}),
    "AutoencoderTiny": (
        _build_tiny,
        {"act_fn": "relu", "upsample_fn": "nearest", "upsampling_scaling_factor": 2},
    ),
}
"""Constructor of each class, and the only supported values of its other fields."""
