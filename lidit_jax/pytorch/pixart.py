"""Import of PixArt-alpha and -Sigma, public text-to-image models of LI-DiT's shape, as a bundle.

Both are transformers of 28 blocks with cross-attention to T5-XXL (arXiv 2310.00426 and 2403.04692).
`lidit_jax.pytorch.pixart_config` translates their configuration, `pixart_layout` their weights.
The bundle copies the autoencoder and references the text encoder.
"""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from lidit_jax.autoencoders.frozen import (
    autoencoder_files,
    load_frozen_autoencoder,
    locate_autoencoder,
)
from lidit_jax.checkpoints.bundle import CONFIG as BUNDLE_CONFIG
from lidit_jax.checkpoints.bundle import WEIGHTS, save_description
from lidit_jax.checkpoints.provenance import Provenance
from lidit_jax.checkpoints.shapes import compare_shapes, parameter_shapes
from lidit_jax.config.checks import check
from lidit_jax.config.data_config import DataConfig
from lidit_jax.config.schema import Config, EncoderConfig, VAEConfig
from lidit_jax.config.values import ComputeType
from lidit_jax.encoders.conditions import PromptEncoders
from lidit_jax.errors import LiditError
from lidit_jax.pytorch.pixart_config import (
    CONFIG,
    INDEX,
    SCHEDULER,
    PixArtTransformer,
    read_pipeline,
    read_scheduler,
    read_transformer,
)
from lidit_jax.pytorch.pixart_layout import UNUSED, from_pixart, pixart_shapes
from lidit_jax.weights.hub import download, is_hub_id
from lidit_jax.weights.huggingface import read_json, safetensors_files
from lidit_jax.weights.mapped_tensors import MappedTensor, list_tensors, map_file
from lidit_jax.weights.tensor_writer import TensorSpec, write_tensors

_TRANSFORMER, _SCHEDULER_FOLDER, _TEXT_ENCODER = "transformer", "scheduler", "text_encoder"
_WEIGHTS, _SHARDS = "diffusion_pytorch_model.safetensors", "diffusion_pytorch_model-*.safetensors"
_TRANSFORMER_FILES = tuple(
    f"{folder}{name}"
    for folder in ("", f"{_TRANSFORMER}/")
    for name in (
        CONFIG,
        _WEIGHTS,
        f"{_WEIGHTS}.index.json",
        "diffusion_pytorch_model-*.safetensors",
    )
)
_PIPELINE_FILES = (INDEX, f"{_SCHEDULER_FOLDER}/{SCHEDULER}")


@dataclass(frozen=True)
class PixArtSource:
    """Folders or hub ids of the parts of a PixArt model."""

    transformer: str
    """A pipeline in diffusers' layout, or a transformer alone."""
    pipeline: str = ""
    """The pipeline with the other parts; empty if `transformer` is one."""
    encoder: str = ""
    """T5 to use instead of the pipeline's; empty for that one."""

    @property
    def whole(self) -> str:
        """The pipeline with the other parts."""
        return self.pipeline or self.transformer


def import_pixart(
    source: PixArtSource,
    out: Path,
    *,
    dtype: ComputeType = "bfloat16",
    encoder_dtype: Literal["float32", "bfloat16", "int8"] = "bfloat16",
) -> Config:
    """Write a bundle, in float32, that draws as the pipeline does, and return its configuration.

    Args:
      source: the model.
      out: an existing folder, which must be empty.
      dtype: compute type of the network.
      encoder_dtype: storage type of the text encoder's weights.

    Raises:
      LiditError: when a file is missing, damaged or pickled, when the model is not supported, or
        when the folder is not empty. The folder is then as it was.
    """
    if any(out.iterdir()):
        raise LiditError(f"{out} is not empty: name a new folder")
    folder = _transformer_folder(source.transformer)
    pipeline = _pipeline_folder(source)
    longest = read_pipeline(read_json(pipeline / INDEX), pipeline / INDEX)
    file = pipeline / _SCHEDULER_FOLDER / SCHEDULER
    diffusion, sampling = read_scheduler(read_json(file), file)
    vae = VAEConfig(source=_absolute(source.whole))
    autoencoder = load_frozen_autoencoder(vae)
    stored = read_json(folder / CONFIG)
    network = read_transformer(stored, folder / CONFIG, autoencoder.downsample, dtype)
    _must_agree("in_channels", network.channels, autoencoder.channels, "its VAE's latents")
    config = check(
        Config(
            encoders=EncoderConfig(
                sources=(_absolute(source.encoder or _encoder_of(source, pipeline)),),
                layers=(-1,),
                dtype=encoder_dtype,
                instruction="",
                lowercase=True,
                max_prompt_tokens=longest,
            ),
            model=network.model,
            vae=dataclasses.replace(
                vae, channels=autoencoder.channels, downsample=autoencoder.downsample
            ),
            diffusion=diffusion,
            sampling=sampling,
            data=DataConfig(image_size=network.sample_size * autoencoder.downsample),
        )
    )
    shapes = parameter_shapes(network.model, [network.feature_width], network.channels)
    tensors = _tensors(folder, network, shapes)
    encoders = PromptEncoders(config.encoders)
    (stream,) = encoders.streams
    _must_agree("caption_channels", network.feature_width, stream.width, "its text encoder's width")
    provenance = Provenance(
        encoders=tuple(encoders.description),
        prefix_lengths=(len(stream.tokenizer.prefix(encoders.prompt_format)),),
        autoencoder=autoencoder.fingerprint,
        # The autoencoder scales its latents itself.
        latent_mean=(0.0,) * autoencoder.channels,
        latent_std=(1.0,) * autoencoder.channels,
    )
    # Moved into the folder when complete, the description, which makes it valid, last.
    with tempfile.TemporaryDirectory(dir=out, prefix=".import-") as temporary:
        made = Path(temporary)
        (made / "vae").mkdir()
        for file in autoencoder_files(locate_autoencoder(vae.source)):
            shutil.copyfile(file, made / "vae" / file.name)
        digest = _write(made / WEIGHTS, network, shapes, tensors)
        save_description(made, config, provenance, digest)
        for name in ("vae", WEIGHTS, BUNDLE_CONFIG):
            (made / name).rename(out / name)
    return config


def _write(
    file: Path,
    network: PixArtTransformer,
    shapes: Mapping[str, tuple[int, ...]],
    tensors: Mapping[str, MappedTensor],
) -> str:
    """Write the weights, one tensor at a time, and return the sha256 of the file."""
    mapped = {place: map_file(place) for place in {tensor.file for tensor in tensors.values()}}
    views = {name: tensor.view(mapped[tensor.file]) for name, tensor in tensors.items()}

    def pieces() -> Iterator[np.ndarray]:
        for path in shapes:
            yield from from_pixart(path, views, network.model, network.channels)

    specs = [TensorSpec(path, shape, "float32") for path, shape in shapes.items()]
    return write_tensors(file, specs, pieces())[1]


def _tensors(
    folder: Path, network: PixArtTransformer, shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, MappedTensor]:
    """Return the transformer's tensors, checked to be exactly those of its configuration."""
    single = folder / _WEIGHTS  # half precision may lie beside it
    files = [single] if single.is_file() else safetensors_files(folder)
    tensors = {tensor.name: tensor for tensor in list_tensors(files) if tensor.name not in UNUSED}
    wanted: dict[str, tuple[int, ...]] = {}
    for path, shape in shapes.items():
        wanted |= pixart_shapes(path, shape, network.model, network.variance)
    found = {name: tensor.shape for name, tensor in tensors.items()}
    compare_shapes(str(folder), wanted, found)
    for tensor in tensors.values():
        if not tensor.is_float:
            raise LiditError(
                f"{tensor.file}: {tensor.name} is {tensor.kind}, not a float: quantized weights "
                "are not supported, take those in float16 or float32"
            )
    return tensors


def _transformer_folder(source: str) -> Path:
    folder = _located(source, _TRANSFORMER_FILES)
    for candidate in (folder / _TRANSFORMER, folder):
        if (candidate / CONFIG).is_file():
            return candidate
    raise LiditError(
        f"{source} has no {_TRANSFORMER}/{CONFIG}: name a PixArt pipeline or transformer in "
        "diffusers' layout; the .pth files of its authors are pickled and never opened"
    )


def _pipeline_folder(source: PixArtSource) -> Path:
    folder = _located(source.whole, _PIPELINE_FILES)
    if not (folder / INDEX).is_file():
        raise LiditError(
            f"{source.whole} has no {INDEX}: it is a transformer alone; name the pipeline with its "
            "text encoder, VAE and scheduler by --pipeline"
        )
    return folder


def _encoder_of(source: PixArtSource, pipeline: Path) -> str:
    """Return the pipeline as the source of its text encoder, unless its weights are pickled."""
    folder = pipeline / _TEXT_ENCODER
    if folder.is_dir() and not any(folder.glob("*.safetensors")) and any(folder.glob("*.bin")):
        raise LiditError(
            f"{folder} has pickled weights only, which could run code and are never opened: name "
            "a copy of the same T5 in safetensors by --encoder, for example one saved with "
            "transformers.T5EncoderModel.from_pretrained(...).save_pretrained(...)"
        )
    return source.whole


def _located(source: str, files: tuple[str, ...]) -> Path:
    """Return a folder on this machine, downloading the given files of a hub id."""
    folder = Path(source).expanduser()
    if not folder.is_dir() and is_hub_id(source):
        return download(source, files)
    if not folder.is_dir():
        raise LiditError(f"{source} is neither a folder nor a hub id (owner/name)")
    return folder


def _absolute(source: str) -> str:
    """Return a folder's absolute path, because the bundle may be opened from elsewhere."""
    folder = Path(source).expanduser()
    return str(folder.resolve()) if folder.is_dir() else source


def _must_agree(name: str, ours: int, theirs: int, whose: str) -> None:
    if ours != theirs:
        raise LiditError(
            f"the transformer's {name}={ours} does not fit {whose}, {theirs}: name the parts that "
            "it was trained with"
        )
