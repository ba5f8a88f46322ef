"""Options that split a model over the devices of a process, for commands that draw images."""

from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING

from lidit_jax.commands.arguments import positive_int
from lidit_jax.errors import LiditError

if TYPE_CHECKING:
    from lidit_jax.config.schema import MeshConfig


def add_device_options(parser: argparse.ArgumentParser) -> None:
    """Add `--tensor` and `--fsdp`."""
    group = parser.add_argument_group("several devices (default: only the first)")
    add = group.add_argument
    add("--tensor", type=positive_int, metavar="N", help="split heads and FFNs over N devices")
    add(
        "--fsdp",
        type=positive_int,
        metavar="N",
        help="split the weights over N devices; 1: each device has the model and part of the batch",
    )


def chosen_mesh(options: argparse.Namespace) -> MeshConfig | None:
    """Return a mesh of all devices of this process if the options split the model, else None.

    Raises:
      LiditError: when the devices do not divide.
    """
    sizes = {name: getattr(options, name) for name in ("tensor", "fsdp") if getattr(options, name)}
    if not sizes:
        return None
    import jax

    from lidit_jax.config.schema import MeshConfig

    if jax.local_device_count() % math.prod(sizes.values()):
        given = " ".join(f"--{name}={size}" for name, size in sizes.items())
        raise LiditError(
            f"{given}: the product must divide the {jax.local_device_count()} devices of this "
            "machine"
        )
    return MeshConfig(**sizes)
