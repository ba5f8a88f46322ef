"""`lidit sample`: generates PNG files from prompts, with all settings as metadata."""

from __future__ import annotations

import argparse
import functools
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lidit_jax.commands.device_options import chosen_mesh
from lidit_jax.commands.sample_options import add_sample
from lidit_jax.commands.self_test import warn_of_known_faults
from lidit_jax.errors import LiditError
from lidit_jax.io.output import writable_folder

if TYPE_CHECKING:
    from lidit_jax.sampling.pipeline import Pipeline


def add_parser(subparsers: Any) -> None:
    """Add `lidit sample`."""
    add_sample(subparsers, run)


def run(options: argparse.Namespace) -> int:
    """Check inputs and output path, then sample and write the images."""
    from lidit_jax.commands.sample_inputs import changes_since, read_inputs

    inputs = read_inputs(options)
    if inputs.record:
        for change in changes_since(inputs.record, inputs.model.config):
            print(f"lidit: warning: {options.again} was drawn {change}", file=sys.stderr)
    with writable_folder(inputs.files[0].parent, "--out"):
        from lidit_jax.commands.sample_output import write_images
        from lidit_jax.io.progress import progress_bar
        from lidit_jax.sampling.pipeline import Pipeline
        from lidit_jax.sampling.sizes import far_from_training

        trained = inputs.model.config.data.image_size
        if warning := far_from_training(inputs.canvas.size, trained):
            print(f"lidit: warning: {warning}", file=sys.stderr)
        warn_of_known_faults()
        load = functools.partial(
            Pipeline.from_checkpoint, mesh=chosen_mesh(options), encoders=dict(options.encoders)
        )
        pipeline, guide = load(inputs.model), inputs.guide and load(inputs.guide)
        if record := inputs.record:
            _check_same(options.again, inputs.checkpoint, pipeline, record.fingerprint)
            if guide is not None and record.guide_fingerprint:
                checkpoint = inputs.guide_checkpoint
                assert checkpoint is not None  # the guide requires one
                _check_same(options.again, checkpoint, guide, record.guide_fingerprint)
        with progress_bar("sampling steps", sys.stderr) as progress:
            images = pipeline(
                inputs.prompts,
                **inputs.per_image,
                **inputs.settings,
                **inputs.canvas.arguments,
                guide=guide,
                progress=progress,
            )
        write_images(images, inputs, pipeline, guide)
    files = inputs.files
    print(files[0] if len(files) == 1 else f"{len(files)} images in {files[0].parent}")
    return 0


def _check_same(image: Path, checkpoint: str, pipeline: Pipeline, fingerprint: str) -> None:
    if pipeline.fingerprint != fingerprint:
        raise LiditError(
            f"{checkpoint} is not the model that drew {image}: its sha256 is "
            f"{pipeline.fingerprint[:12]}..., was {fingerprint[:12]}..."
        )
