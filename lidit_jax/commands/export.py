"""`lidit export`: export of a workdir's newest checkpoint to a small folder for sampling."""

from __future__ import annotations

import argparse
import shutil
from typing import Any

from lidit_jax.commands.arguments import add_command, file_size
from lidit_jax.errors import LiditError
from lidit_jax.io.bucket_sync import local_staging
from lidit_jax.io.output import writable_folder
from lidit_jax.io.paths import to_path

_EXAMPLES = """\
  lidit export --checkpoint=runs/demo --out=my-model
  lidit sample --checkpoint=my-model --prompt="a red circle" --out=circle.png

The folder holds config.json and model.safetensors (the averaged weights in half precision), or
several weight files and their index with --max-file-size. A text-to-image model has its autoencoder
in vae/; its text encoders are referenced, not copied. README.md is a model card to complete; an
existing one is kept. A KL autoencoder (Stable Diffusion's architecture) is written in diffusers'
layout, which diffusers opens too.
"""


def add_parser(subparsers: Any) -> None:
    """Add `lidit export`."""
    parser = add_command(
        subparsers, "export", "write the weights of a run as a folder to share", _EXAMPLES, run
    )
    parser.add_argument(
        "--checkpoint",
        required=True,
        type=to_path,
        metavar="DIR",
        help='a workdir of "lidit train"',
    )
    parser.add_argument("--out", required=True, type=to_path, metavar="DIR", help="the new folder")
    parser.add_argument(
        "--max-file-size",
        type=file_size,
        default=0,
        metavar="SIZE",
        help="split the weights into files of at most this size, such as 15MiB",
    )
    parser.add_argument(
        "--raw", action="store_true", help="the raw weights instead of their moving average"
    )


def run(options: argparse.Namespace) -> int:
    """Load the newest checkpoint and write the folder."""
    with writable_folder(options.out, "--out"), local_staging(options.out) as out:
        import jax

        from lidit_jax.autoencoders import diffusers_layout
        from lidit_jax.autoencoders.frozen import (
            autoencoder_files,
            build_autoencoder,
            locate_autoencoder,
        )
        from lidit_jax.autoencoders.kl import AutoencoderKL
        from lidit_jax.checkpoints.bundle import is_bundle, save_bundle
        from lidit_jax.checkpoints.model_card import model_card, write_model_card
        from lidit_jax.checkpoints.opener import open_model

        model = open_model(options.checkpoint, raw=options.raw)
        if is_bundle(model.folder):
            raise LiditError(f"{model.folder} is an exported folder already: copy it")
        config, params = model.config, model.load()
        if config.training.task == "lidit" and config.vae.source != "pixels":
            source, target = locate_autoencoder(config.vae.source), out / "vae"
            if source.resolve() != target.resolve():
                target.mkdir(parents=True, exist_ok=True)
                for file in autoencoder_files(source):
                    shutil.copy2(file, target)
        kl = config.training.task == "vae" and config.vae.architecture == "kl"
        if kl and options.max_file_size:
            raise LiditError(
                "diffusers' layout has a single weight file: leave out --max-file-size"
            )
        if kl:
            autoencoder = build_autoencoder(config.vae)
            assert isinstance(autoencoder, AutoencoderKL)
            diffusers_layout.save(out, autoencoder, params)
        else:
            largest = options.max_file_size
            save_bundle(out, params, config, model.provenance, largest_file=largest)
        parameters = sum(leaf.size for leaf in jax.tree.leaves(params))
        name = options.out.name or out.resolve().name
        card = model_card(name, config, model.provenance, parameters, raw=options.raw)
        write_model_card(out, card, options.out)
        size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    print(f"{options.out}: {size / 1e6:.1f} MB, step {model.step}")
    return 0
