"""`lidit cache`: latents and text features of a recipe's data, before a run that reads them."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from lidit_jax.commands.arguments import add_command
from lidit_jax.commands.recipe import checked_recipe
from lidit_jax.errors import LiditError

if TYPE_CHECKING:
    from lidit_jax.config.schema import Config

_EXAMPLES = """\
  lidit cache --config=configs/demo.py
  lidit cache --config=lidit_10b --config.data.source=webdataset --config.data.path=gs://b/photos \\
      --config.data.cache_dir=gs://b/cache --config.data.workers=16

It opens the data of the recipe and runs its frozen models over it: the autoencoder over every
image in use (config.data.latents=cached), the text encoders over every caption in use
(config.data.text_features=cached; config.data.text_storage=int8 halves their size). lidit train
with the same settings then reads them, and encodes nothing. Without this command it makes them
itself before its first step, unless config.data.cache_missing=refuse.

Both are written to config.data.cache_dir in shards of about 256 MB. On several hosts, start the
same command on each, as with lidit train: they share the work, and cache_dir must be a folder or
bucket that all of them share. After an interruption, the same command writes the missing shards.

Whatever determines the content (the autoencoder; the encoders, their layers and instruction; the
records, filters, captions and shapes) names the cache: with another setting another one is made
beside it, and the difference is reported. Records that cannot be used, or whose image was repaired,
are listed in unusable.jsonl.
"""


def add_parser(subparsers: Any) -> None:
    """Add `lidit cache`."""
    parser = add_command(
        subparsers,
        "cache",
        "encode the images and captions of a recipe, before training",
        _EXAMPLES,
        run,
    )
    parser.add_argument(
        "--config", required=True, metavar="RECIPE", help="a recipe: configs/NAME.py, or its name"
    )
    parser.add_argument(
        "--config.FIELD",
        metavar="VALUE",
        help="override a field of the recipe, as often as needed (data.path, encoders.layers, ...)",
    )


def run(options: argparse.Namespace) -> int:
    """Make the caches of a recipe."""
    from dataclasses import replace
    from pathlib import Path

    import jax

    from lidit_jax.hardware import known_faults
    from lidit_jax.hardware.xla_flags import apply_flags
    from lidit_jax.parallel.distributed import join_processes, print_on_main
    from lidit_jax.training.host_consistency import check_program_consistency
    from lidit_jax.training.preemption import Terminated, raise_on_sigterm

    config = checked_recipe(options)
    _check_cached(config)
    config = replace(config, data=replace(config.data, cache_missing="build"))
    flags = apply_flags()
    join_processes()
    print_on_main(flags + known_faults.warnings(jax.devices()))
    check_program_consistency(config, Path())  # there is no workdir
    try:
        with raise_on_sigterm():
            _fill(config)
    except Terminated:
        print("stopped; run the same command to go on")
    return 0


def _check_cached(config: Config) -> None:
    if config.training.task != "lidit":
        raise LiditError("an autoencoder trains on images: there is nothing to cache")
    if config.data.latents == config.data.text_features == "online":
        raise LiditError(
            "config.data.latents and config.data.text_features are 'online': set one to 'cached'"
        )


def _fill(config: Config) -> None:
    """Open the data and the models, and fill both caches."""
    from lidit_jax.autoencoders.frozen import load_frozen_autoencoder
    from lidit_jax.data.cache.configured import configured_latents, configured_text
    from lidit_jax.data.opened_data import open_data
    from lidit_jax.encoders.conditions import PromptEncoders
    from lidit_jax.parallel.distributed import print_on_main
    from lidit_jax.parallel.mesh import own_mesh

    autoencoder = load_frozen_autoencoder(config.vae)
    data = open_data(config, autoencoder.downsample * config.model.patch)
    print_on_main(data.report)
    places = []
    if latents := configured_latents(config, data, autoencoder):
        places.append(f"latents are in {latents.store.folder}")
    del latents, autoencoder
    if config.data.text_features == "cached":
        encoders = PromptEncoders(config.encoders, own_mesh())
        text = configured_text(config, data, encoders)
        assert text is not None  # as they are cached
        places.append(f"text features are in {text.store.folder}")
    print_on_main(places)
