"""Export of a trained model to a PyTorch folder that runs without JAX.

    OUT/model.safetensors     tensors in PyTorch's layout; above 5 GB several files and an index
    OUT/config.json           what sampling needs, and the run's configuration and metadata
    OUT/lidit_torch.py        the model: `LIDiT.from_pretrained(OUT)`, or a command line
    OUT/pipeline.py           the same for diffusers, with model_index.json
    OUT/encoders/K, OUT/vae   the frozen encoders and the autoencoder, where they are copied
    OUT/README.md             a model card to fill in, unless there is one
    OUT/manifest.json         sha256 of every tensor and of every other file but README.md

Parameters are read, permuted and written one at a time.
"""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lidit_jax.checkpoints.migrations import FORMAT as DESCRIPTION_FORMAT
from lidit_jax.checkpoints.model_card import model_card, write_model_card
from lidit_jax.checkpoints.opener import SavedModel
from lidit_jax.checkpoints.shapes import check_shapes, feature_widths
from lidit_jax.config.schema import Config
from lidit_jax.errors import LiditError
from lidit_jax.io.output import atomic_file
from lidit_jax.pytorch.layout import to_torch, torch_layers, torch_names
from lidit_jax.weights.gguf import file_sha256
from lidit_jax.weights.tensor_writer import (
    DTYPES,
    SHARD_BYTES,
    TensorSpec,
    shard_names,
    shards,
    write_tensors,
)

FORMAT = 1
MODULE = "lidit_torch.py"
MANIFEST = "manifest.json"
INDEX = "model.safetensors.index.json"
_OWN_IMPORTS = re.compile(r"^from lidit_jax\S* import (?:\([^)]*\)|[^(\n]*)\n", re.MULTILINE)
_ANCESTRAL = ("ddpm", "euler_ancestral")
_ENCODER_FILES = ("*.safetensors", "*.safetensors.index.json", "config.json", "tokenizer*.json")
_ENCODER_FILES += ("spiece.model",)


def export_torch(
    source: SavedModel,
    out: Path,
    *,
    raw: bool = False,
    dtype: str = "float32",
    with_encoders: bool = False,
    shard_bytes: int = SHARD_BYTES,
    encoders: Mapping[str, str] | None = None,
) -> bool:
    """Export a trained model to a folder; `manifest.json` is written last and marks it complete.

    Args:
      source: the trained model.
      out: an existing folder.
      raw: whether `source` has the raw weights, not EMA weights; stored in the metadata.
      dtype: of the tensors: "float32", "float16" or "bfloat16".
      with_encoders: copy all encoders; otherwise only those from Python packages and GGUF files,
        which PyTorch users could not find.
      shard_bytes: most bytes per file.
      encoders: current paths of text encoders that moved since training.

    Returns:
      Whether README.md was written; one that exists is kept.

    Raises:
      LiditError: when a weight is not finite in `dtype`, the encoders or the autoencoder cannot be
        found, or the model cannot be exported.
    """
    if source.config.training.task != "lidit":
        raise LiditError(f"{source.folder} holds an autoencoder: name a text-to-image checkpoint")
    check_shapes(source)
    (out / MANIFEST).unlink(missing_ok=True)
    config = {
        "model_type": "lidit",
        "format": FORMAT,
        "lidit": {
            "format": DESCRIPTION_FORMAT,
            "config": source.config.to_dict(),
            "metadata": source.provenance.to_json(),
            "weights": "raw" if raw else "averaged",
        },
        "streams": _export_encoders(source, out, with_encoders, encoders),
        **_export_autoencoder(source, out),
        "latents": source.provenance.to_json()["latents"],
        "schedule": _schedule(source.config),
        "sampling": {
            "size": source.config.data.image_size,
            "steps": source.config.sampling.steps,
            "guidance": source.config.sampling.guidance,
            "fresh_noise": _fresh_noise(source.config),
        },
    }
    _write_json(out / "config.json", config)
    _export_code(out)
    parameters = sum(math.prod(shape) for shape in source.shapes.values())
    facts = (source.config, source.provenance, parameters)
    card = model_card(out.resolve().name, *facts, raw=raw, pytorch=True)
    card_is_new = write_model_card(out, card)
    tensors = _export_weights(source, out, dtype, shard_bytes)
    others = sorted(
        file
        for file in out.rglob("*")
        if file.is_file() and (file.parent != out or file.name in ("config.json", MODULE))
    )
    files = {file.relative_to(out).as_posix(): file_sha256(file) for file in others}
    _write_json(out / MANIFEST, {"format": FORMAT, "tensors": tensors, "files": files})
    return card_is_new


def module_source() -> str:
    """Return the source of `lidit_torch.py`: prompt cleaning, network, sampler and command line."""
    text, layers, model, sampling = (
        _OWN_IMPORTS.sub("", resources.files(package).joinpath(name).read_text(encoding="utf-8"))
        for package, name in (
            ("lidit_jax.config", "text.py"),
            ("lidit_jax.pytorch", "layers.py"),
            ("lidit_jax.pytorch", "model.py"),
            ("lidit_jax.pytorch", "sampling.py"),
        )
    )
    _, usage, body = sampling.split('"""', 2)
    return f'"""{usage}"""\n\n{text}\n\n{layers}\n\n{model}\n\n{body.lstrip()}'


def _export_weights(
    source: SavedModel, out: Path, dtype: str, shard_bytes: int
) -> dict[str, dict[str, Any]]:
    """Write the tensors and return their part of the manifest."""
    config = source.config.model
    specs = []
    for path, shape in source.shapes.items():
        names = torch_names(path, shape)
        # A broadcast array has the shape without the memory.
        empty = torch_layers(path, np.broadcast_to(np.float32(0), shape))[0]
        specs += [TensorSpec(name, to_torch(path, empty, config).shape, dtype) for name in names]

    def pieces() -> Iterator[np.ndarray]:
        for path in source.shapes:
            for layer in torch_layers(path, source.read(path)):
                yield to_torch(path, layer, config)

    for old in (*out.glob("model*.safetensors"), *out.glob(INDEX)):
        old.unlink()
    files = shards(specs, shard_bytes)
    names, values, manifest = shard_names(len(files)), pieces(), {}
    for name, contents in zip(names, files, strict=True):
        hashes, _ = write_tensors(out / name, contents, values)
        for spec in contents:
            kind = {"dtype": DTYPES[dtype][0], "shape": spec.shape}
            manifest[spec.name] = {"file": name, **kind, "sha256": hashes[spec.name]}
    if len(files) > 1:
        index = {
            "metadata": {"total_size": sum(spec.nbytes for spec in specs)},
            "weight_map": {name: entry["file"] for name, entry in manifest.items()},
        }
        _write_json(out / INDEX, index)
    return manifest


def _export_encoders(
    source: SavedModel, out: Path, with_encoders: bool, moved: Mapping[str, str] | None
) -> list[dict[str, Any]]:
    """Return each stream's prompt format and its encoder's location; copy encoders as required."""
    from lidit_jax.config.prompt_format import PromptFormat
    from lidit_jax.encoders.encoder_families import CONTRASTIVE
    from lidit_jax.encoders.families import described
    from lidit_jax.encoders.locations import (
        PACKAGED_ENCODERS,
        locate_encoder,
        locate_tokenizer,
        tokenizer_home,
    )
    from lidit_jax.encoders.relocated import resolve_sources
    from lidit_jax.encoders.tokenizer_check import load_tokenizer
    from lidit_jax.weights.huggingface import read_json

    settings = source.config.encoders
    prompt_format = PromptFormat(settings.instruction, settings.system_prompt, settings.lowercase)
    streams, remembered = [], source.provenance.encoders
    widths = feature_widths(source.config.model, source.shapes, len(remembered))
    places = resolve_sources([str(s["source"]) for s in remembered], remembered, moved)
    for k, (trained_with, place) in enumerate(zip(remembered, places, strict=True)):
        folder = locate_encoder(place)
        if (family := described(read_json(folder / "config.json"))["model_type"]) in CONTRASTIVE:
            raise LiditError(
                f"encoder {place!r} is a {family!r} model, which the exported module cannot run: "
                "export models with decoders, T5 or BERT"
            )
        home = tokenizer_home(folder)
        tokenizer = load_tokenizer(locate_tokenizer(folder))
        if with_encoders or place in PACKAGED_ENCODERS or place.endswith(".gguf"):
            place = f"encoders/{k}"
            (out / place).mkdir(parents=True, exist_ok=True)
            for pattern in _ENCODER_FILES:
                for file in {*folder.glob(pattern), *home.glob(pattern)}:
                    shutil.copyfile(file, out / place / file.name)
        elif Path(place).expanduser().exists():
            place = str(folder.resolve())
        elif home != folder and not place.endswith(f"/{folder.name}"):
            place = f"{place}/{folder.name}"  # a pipeline on the hub
        own = {}
        if tokenizer.folder != folder:
            # Not over the encoder's own file, whose digest identifies it in a checkpoint.
            own = {"tokenizer": f"tokenizers/{k}.json"}
            (out / "tokenizers").mkdir(parents=True, exist_ok=True)
            shutil.copyfile(tokenizer.folder / "tokenizer.json", out / own["tokenizer"])
        streams.append(
            {
                "source": place,
                **own,
                **({"lowercase": True} if prompt_format.lowercase else {}),
                "layer": trained_with["layer"],
                "prefix": tokenizer.prefix(prompt_format),
                "end": tokenizer.end,
                "pad": tokenizer.pad,
                "width": widths[k],
            }
        )
    return streams


class FoundAutoencoder(NamedTuple):
    """Autoencoder of a model, on this machine."""

    folder: Path | None
    """None for pixels."""
    kind: dict[str, Any]
    """What the PyTorch module reads to decode latents."""
    channels: int
    """Latent channels C."""
    downsample: int
    """Image pixels per latent pixel, along each side."""


def find_autoencoder(source: SavedModel) -> FoundAutoencoder:
    """Return the autoencoder of a model: its own, or else the one that its configuration names.

    Raises:
      LiditError: when there is none, or one that is only in this package's layout.
    """
    from lidit_jax.autoencoders.diffusers_layout import read_model
    from lidit_jax.autoencoders.frozen import locate_autoencoder
    from lidit_jax.checkpoints.bundle import is_bundle

    vae = source.config.vae
    if vae.source == "pixels":
        return FoundAutoencoder(None, {"kind": "pixels"}, 3, 1)
    own = source.folder / "vae"
    folder = own if own.is_dir() else locate_autoencoder(vae.source)
    if is_bundle(folder):
        trained = json.loads((folder / "config.json").read_text())["config"]["vae"]
        if trained.get("architecture", "patch") != "patch":
            raise LiditError(
                f"{folder} is not in diffusers' layout: `lidit export` its workdir again, and set "
                "config.vae.source to that folder"
            )
        kind = {"kind": "patch"}
        return FoundAutoencoder(folder, kind, trained["channels"], trained["downsample"])
    model = read_model(folder)
    kind = {"kind": json.loads((folder / "config.json").read_text())["_class_name"]}
    kind |= {"shift": list(model.shift), "scale": list(model.scale)}
    return FoundAutoencoder(folder, kind, model.channels, model.downsample)


def _export_autoencoder(source: SavedModel, out: Path) -> dict[str, Any]:
    """Copy the autoencoder's files to OUT/vae and return their description."""
    from lidit_jax.autoencoders.frozen import autoencoder_files

    folder, kind, channels, downsample = find_autoencoder(source)
    if folder is not None:
        (out / "vae").mkdir(exist_ok=True)
        for file in autoencoder_files(folder):
            shutil.copyfile(file, out / "vae" / file.name)
    return {"autoencoder": kind, "channels": channels, "downsample": downsample}


def _schedule(config: Config) -> dict[str, Any]:
    """Return the diffusion process in the form that the PyTorch sampler reads."""
    from lidit_jax.diffusion import process as processes

    process = processes.from_config(config.diffusion)
    shared = {"process": process.name, "prediction": process.prediction}
    if not isinstance(process, processes.DDPM):
        return shared | {"shift": config.sampling.shift or config.diffusion.shift}
    signal, sigma = process.scales_of(np.arange(process.timesteps, dtype=np.float64))
    levels = {"signal": signal.tolist(), "sigma": sigma.tolist()}
    return shared | {"timesteps": process.timesteps} | levels


def module_sampler(config: Config) -> str:
    """Return the exported sampler: the run's own if it is a form of DDIM, else plain DDIM."""
    plain = "euler" if config.diffusion.process == "flow" else "ddim"
    own = config.sampling.sampler
    return own if own in ("ddim", "euler", *_ANCESTRAL) else plain


def _fresh_noise(config: Config) -> float:
    """Return the share of fresh noise per DDIM step, in which those samplers differ."""
    sampler = module_sampler(config)
    return 1.0 if sampler in _ANCESTRAL else config.sampling.eta if sampler == "ddim" else 0.0


def _export_code(out: Path) -> None:
    (out / MODULE).write_text(module_source(), encoding="utf-8")
    pipeline = resources.files("lidit_jax.pytorch").joinpath("diffusers_pipeline.py")
    (out / "pipeline.py").write_text(pipeline.read_text(encoding="utf-8"), encoding="utf-8")
    index = {"_class_name": ["pipeline", "LIDiTPipeline"], "_diffusers_version": "0.42.1"}
    _write_json(out / "model_index.json", index)


def _write_json(file: Path, content: dict[str, Any]) -> None:
    with atomic_file(file) as stream:
        stream.write(json.dumps(content, indent=2).encode())
