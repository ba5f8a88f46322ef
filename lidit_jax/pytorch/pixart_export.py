"""Export of a model with PixArt's options to diffusers' layout of PixArt's transformer.

    OUT/diffusion_pytorch_model.safetensors
    OUT/config.json           read by `diffusers.PixArtTransformer2DModel.from_pretrained(OUT)`

A model has PixArt's form if it was imported from one, and its modulations were not trained since.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from lidit_jax.checkpoints.opener import SavedModel
from lidit_jax.checkpoints.shapes import check_shapes, feature_widths
from lidit_jax.config.schema import ModelConfig
from lidit_jax.errors import LiditError
from lidit_jax.io.output import atomic_file
from lidit_jax.pytorch.export import find_autoencoder
from lidit_jax.pytorch.pixart_config import CONFIG, read_transformer
from lidit_jax.pytorch.pixart_layout import pixart_shapes, to_pixart
from lidit_jax.weights.tensor_writer import TensorSpec, write_tensors

WEIGHTS = "diffusion_pytorch_model.safetensors"
_WITHOUT_EFFECT = {
    *("dtype", "remat", "scan_unroll", "attention"),
    *(f"refiner.{name}" for name in ("causal", "gate", "mlp_ratio", "collaborative_blocks")),
}
"""Fields that change no output: of compute, and of refiners without blocks in a single stream."""


def export_pixart(source: SavedModel, out: Path, dtype: str = "float32") -> None:
    """Write a transformer that diffusers loads, with the same output; `config.json` comes last.

    It predicts no variance: `out_channels` are the latent channels.

    Args:
      source: the trained model.
      out: an existing folder.
      dtype: of the tensors: "float32", "float16" or "bfloat16".

    Raises:
      LiditError: when the model is no PixArt, which names what differs, or a weight is not finite
        in `dtype`.
    """
    if source.config.training.task != "lidit":
        raise LiditError(f"{source.folder} holds an autoencoder: name a text-to-image checkpoint")
    check_shapes(source)
    description = _description(source)
    (out / CONFIG).unlink(missing_ok=True)
    config = source.config.model
    shapes = {
        path: pixart_shapes(path, shape, config, variance=False)
        for path, shape in source.shapes.items()
    }
    specs = [
        TensorSpec(name, shape, dtype)
        for tensors in shapes.values()
        for name, shape in tensors.items()
    ]

    def pieces() -> Iterator[np.ndarray]:
        for path, tensors in shapes.items():
            values = to_pixart(path, source.read(path), config)
            yield from (values[name] for name in tensors)

    write_tensors(out / WEIGHTS, specs, pieces())
    with atomic_file(out / CONFIG) as file:
        file.write(json.dumps(description, indent=2).encode())


def _description(source: SavedModel) -> dict[str, Any]:
    """Return the content of `config.json`, if reading it back gives the network of the model."""
    model, provenance = source.config.model, source.provenance
    autoencoder = find_autoencoder(source)
    side = source.config.data.image_size // autoencoder.downsample
    tokens = side // model.patch
    description = {
        "_class_name": "PixArtTransformer2DModel",
        "num_attention_heads": model.heads,
        "attention_head_dim": model.width // model.heads,
        "in_channels": autoencoder.channels,
        "out_channels": autoencoder.channels,
        "num_layers": model.depth,
        "cross_attention_dim": model.width,
        "sample_size": side,
        "patch_size": model.patch,
        "interpolation_scale": tokens / model.sincos_extent if model.sincos_extent else 1.0,
        "use_additional_conditions": model.size_embedding > 0,
        "caption_channels": feature_widths(model, source.shapes, 1)[0],
    }
    theirs = read_transformer(description, Path(CONFIG), autoencoder.downsample, "float32").model
    differences = _differences(model, theirs)
    if (streams := len(provenance.encoders)) != 1:
        differences.append(f"{streams} text encoders, not 1")
    if any(count != 1 for count in provenance.layer_counts):
        differences.append("several layers of its text encoder (config.encoders.layers)")
    elif any(stream["layer"] != -1 for stream in provenance.encoders):
        differences.append(
            "another layer of its text encoder than the last (config.encoders.layers)"
        )
    if not source.config.encoders.lowercase:
        differences.append(
            "prompts that are not turned into lower case (config.encoders.lowercase)"
        )
    diffusion = source.config.diffusion
    if (kind := (diffusion.process, diffusion.prediction)) != ("ddpm", "epsilon"):
        differences.append(f"config.diffusion of {' and '.join(kind)}, not ddpm and epsilon")
    if any(provenance.prefix_lengths):
        differences.append("an instruction before every prompt (config.encoders.instruction)")
    if any(provenance.latent_mean) or any(std != 1 for std in provenance.latent_std):
        differences.append("latents normalized by the statistics of its training data")
    if differences:
        raise LiditError(
            f"{source.folder} has no form in PixArt's layout, because of {'; '.join(differences)}: "
            "convert it with `lidit convert to-torch`"
        )
    return description


def _differences(ours: ModelConfig, theirs: ModelConfig) -> list[str]:
    """Name the fields that make another network than PixArt's."""
    fields, wanted = _flat(ours), _flat(theirs)
    return [
        f"config.model.{name}={value!r}, not {wanted[name]!r}"
        for name, value in fields.items()
        if name not in _WITHOUT_EFFECT and not _equal(value, wanted[name])
    ]


def _equal(one: Any, other: Any) -> bool:
    """Compare two values; the extent of positions, a quotient, but for rounding."""
    return math.isclose(one, other) if isinstance(one, float) else one == other


def _flat(config: ModelConfig) -> dict[str, Any]:
    fields = asdict(config)
    refiner = fields.pop("refiner")
    return fields | {f"refiner.{name}": value for name, value in refiner.items()}
