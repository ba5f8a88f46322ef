"""Inputs of `lidit sample`, validated before the model's weights are loaded."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lidit_jax.commands.sample_options import DEFAULTS, RECORDED, SETTINGS
from lidit_jax.config.prompt_text import prompt_text
from lidit_jax.config.text import clean_text, split_lines
from lidit_jax.errors import LiditError
from lidit_jax.sampling import png_metadata
from lidit_jax.sampling.memory import check_count

if TYPE_CHECKING:
    from lidit_jax.commands.sample_canvas import Canvas
    from lidit_jax.config.schema import Config
    from lidit_jax.sampling.opened_model import OpenedModel
    from lidit_jax.sampling.png_metadata import ImageRecord


@dataclass(frozen=True, kw_only=True)
class SampleInputs:
    """Prompts, settings, model and output files of `lidit sample`."""

    checkpoint: str
    """Checkpoint as given on the command line."""
    model: OpenedModel
    guide_checkpoint: str | None
    """Weaker model of autoguidance, as given on the command line."""
    guide: OpenedModel | None
    raw: bool
    """Whether to sample with the raw weights instead of the EMA weights."""
    prompts: list[str]
    """One prompt per image."""
    per_image: dict[str, Any]
    """Arguments of `Pipeline.__call__` that may differ per image."""
    settings: dict[str, Any]
    """Fields of `config.sampling`; None for those of the checkpoint."""
    canvas: Canvas
    """Image size and initial image."""
    files: list[Path]
    """PNG files to write: one per image, or one with all of them."""
    record: ImageRecord | None
    """Record of the image to reproduce, with --again."""


def read_inputs(options: argparse.Namespace) -> SampleInputs:
    """Combine the options, or the record of the image named by --again, into inputs.

    The model is opened, not loaded: all mistakes in the options are reported at once.

    Raises:
      LiditError: for options that contradict each other or do not fit the model, files that cannot
        be read, or names that cannot be written.
    """
    given = [name for name in RECORDED if getattr(options, name) is not None]
    vars(options).update({k: v for k, v in DEFAULTS.items() if k not in given})
    record = _read_record(options, given)
    texts = [record.request["prompt"]] if record else read_prompts(options)
    check_count(len(texts) * options.count)
    prompts = [prompt for prompt in texts for _ in range(options.count)]
    files = output_files(options.out, len(prompts), options.grid)
    checkpoint = options.checkpoint or (record.checkpoint if record else None)
    if not checkpoint:
        raise LiditError("--checkpoint is missing: name a workdir, an exported folder, or 'demo'")
    if record:
        per_image = {name: value for name, value in record.request.items() if name != "prompt"}
        settings = {name: value for name, value in record.settings.items() if name in SETTINGS}
    else:
        per_image = _per_image(options, len(prompts))
        settings = {name: getattr(options, name) for name in SETTINGS}
    from lidit_jax.checkpoints.opener import open_model
    from lidit_jax.commands.sample_canvas import read_canvas
    from lidit_jax.sampling.opened_model import OpenedModel

    raw = record.raw if record else options.raw
    model, guide = OpenedModel(open_model(checkpoint, raw=raw)), None
    model.settings(**settings)
    guide_checkpoint = options.guide_checkpoint or (record.guide if record else None)
    if guide_checkpoint:
        guide = OpenedModel(open_model(guide_checkpoint, raw=raw))
        model.check_guide(guide)
    return SampleInputs(
        checkpoint=checkpoint,
        model=model,
        guide_checkpoint=guide_checkpoint,
        guide=guide,
        raw=raw,
        prompts=prompts,
        per_image=per_image,
        settings=settings,
        canvas=read_canvas(options, model, record, len(prompts)),
        files=files,
        record=record,
    )


def _read_record(options: argparse.Namespace, given: list[str]) -> ImageRecord | None:
    """Read the record of --again, with the options' checkpoint if given; `given` must be empty."""
    if options.again is None:
        return None
    if given:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise LiditError(f"--again reproduces one image: leave out {names}")
    record = png_metadata.read(options.again)
    if record.source and not options.image:
        raise LiditError(
            f"{options.again} was made from an initial image: give it with --image=FILE"
        )
    return record


def changes_since(record: ImageRecord, config: Config) -> list[str]:
    """Return why an image cannot be reproduced bit for bit, each to complete "was drawn …".

    Args:
      record: record of the image.
      config: current configuration of the checkpoint.
    """
    from lidit_jax.sampling.request import TEXTS

    texts = [record.request[name] for name in TEXTS]
    # Version 0.1 did not clean prompts.
    untidy = [text for text in texts if text != clean_text(text)]
    changes = [
        f"by a version that cleaned its prompt {text!r} differently: this image will differ"
        for text in untidy[:1]
    ]
    now = png_metadata.computing(config)
    return changes + [
        f"with config.{name}={before}, which is now {now[name]}: this image may differ slightly"
        for name, before in record.computed.items()
        if now.get(name, before) != before
    ]


def _per_image(options: argparse.Namespace, count: int) -> dict[str, Any]:
    fields = {
        "seed": options.seed,
        "guidance": options.guidance,
        "negative_prompt": options.negative_prompt,
        "blend_with": options.blend_with,
        "blend": options.blend or 0.0,
        "variation": options.variation,
        "variation_seed": options.variation_seed,
    }
    turns = [i % options.count for i in range(count)]
    if options.variation:
        fields["seed"] = [options.seed] * count
        fields["variation_seed"] = [(options.variation_seed + turn) % 2**32 for turn in turns]
    if options.blend_with and options.blend is None:
        last = options.count - 1
        fields["seed"] = [options.seed] * count
        fields["blend"] = [turn / last if last else 0.5 for turn in turns]
    return fields


def read_prompts(options: argparse.Namespace) -> list[str]:
    """Return the prompts of --prompt, then the lines of --prompts, cleaned.

    Raises:
      LiditError: when there is none, one is empty or damaged, or the file cannot be read.
    """
    prompts = [prompt_text("--prompt", prompt) for prompt in options.prompt]
    if not all(prompts):
        raise LiditError('--prompt is empty: describe an image, as in --prompt="a red circle"')
    if options.prompts:
        try:
            lines = split_lines(options.prompts.read_bytes())
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "not UTF-8 text"
            raise LiditError(
                f"--prompts: cannot read {options.prompts} ({reason}): "
                "name a text file with one prompt per line"
            ) from error
        prompts += [text for line in lines if (text := clean_text(line))]
        if not prompts:
            raise LiditError(f"--prompts: {options.prompts} is empty: write one prompt per line")
    if not prompts:
        raise LiditError("no prompt: give --prompt=TEXT or --prompts=FILE")
    return prompts


def output_files(out: Path, count: int, grid: bool) -> list[Path]:
    """Return the PNG files: `out` itself, or numbered ones (`grid.png`) in the folder `out`.

    Raises:
      LiditError: when the name is a folder, of another format, or one for several images.
    """
    if out.suffix.lower() == ".png":
        if out.is_dir():
            raise LiditError(f"--out={out} is a folder: name a .png file in it")
        if count > 1 and not grid:
            raise LiditError(
                f"--out={out} is one file for {count} images: name a folder, or add --grid"
            )
        return [out]
    if out.suffix.lower() in (".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff"):
        raise LiditError(f"--out={out}: images are written as PNG: end the name in .png")
    return [out / "grid.png"] if grid else [out / f"{i:04d}.png" for i in range(count)]
