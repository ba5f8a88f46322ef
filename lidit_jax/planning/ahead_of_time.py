"""Ahead-of-time compilation of the training step for a TPU slice, by libtpu on any Linux machine.

https://docs.jax.dev/en/latest/aot.html
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding

from lidit_jax.checkpoints.state import create_state
from lidit_jax.config.schema import Config
from lidit_jax.diffusion import process as processes
from lidit_jax.errors import LiditError
from lidit_jax.hardware.jax_device import JaxDevice
from lidit_jax.models.abstract_inputs import abstract_inputs, initialize
from lidit_jax.models.flops import TextStream
from lidit_jax.models.lidit import LIDiT
from lidit_jax.parallel.mesh import batch_sharding, replicated
from lidit_jax.parallel.rules import LOGICAL_AXIS_RULES, sharded_shapes
from lidit_jax.training.diffusion_loss import diffusion_loss, random_draws
from lidit_jax.training.optimizers import make_optimizer, rate_of
from lidit_jax.training.step import make_train_step


def topology_devices(name: str, slices: int = 1) -> list[JaxDevice]:
    """Return compile-only devices of a TPU slice such as "v5p:2x2x2", or of several slices.

    Raises:
      LiditError: when libtpu is not installed, or does not support the topology.
    """
    several = {"num_slices": slices} if slices > 1 else {}
    try:
        described = topologies.get_topology_desc(platform="tpu", topology_name=name, **several)
    except Exception as error:  # the plugin's errors have no common type
        reason = str(error).splitlines()[0][:150]
        raise LiditError(
            f"libtpu cannot compile for {name}: {reason} (pip install 'lidit-jax[tpu]', Linux only)"
        ) from error
    return list(described.devices)


def lower_train_step(
    config: Config, mesh: Mesh, streams: Sequence[TextStream]
) -> jax.stages.Lowered:
    """Trace the training step on cached latents and features, lowered for the devices of `mesh`.

    It is the step of `lidit train` without caption dropout and loss statistics.

    Args:
      config: the run.
      mesh: see `make_mesh`.
      streams: lengths and widths of the text features.
    """
    model = LIDiT(config.model, config.training.quantization)
    process = processes.from_config(config.diffusion)
    prefix_lengths = tuple(stream.prefix_length for stream in streams)
    init = functools.partial(initialize, model, streams=streams, latent_shape=config.latent_shape)

    def loss(params: Any, frozen: Any, batch: Any, key: jax.Array) -> tuple[jax.Array, dict]:
        del frozen

        def predict(*inputs: Any) -> tuple[Any, None]:
            return model.apply({"params": params}, *inputs, prefix_lengths), None

        draws = random_draws(process, batch, *jax.random.split(key))
        losses, _ = diffusion_loss(predict, process, batch, draws)
        return jnp.mean(losses), {}

    optimizer = make_optimizer(config)
    with nn.logical_axis_rules(LOGICAL_AXIS_RULES):
        boxed = jax.eval_shape(functools.partial(create_state, init, optimizer, config))
        state = sharded_shapes(mesh, boxed)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, state)
    split: NamedSharding = batch_sharding(mesh)
    rows = config.training.batch_size
    latent, _, features, masks = abstract_inputs(streams, config.latent_shape, rows)
    index = jax.ShapeDtypeStruct((rows,), jnp.int32)
    batch = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=split),
        {"latent": latent, "index": index, "features": features, "masks": masks},
    )
    step = make_train_step(loss, config)
    compiled = jax.jit(step, donate_argnums=0, out_shardings=(shardings, replicated(mesh)))
    with jax.set_mesh(mesh), nn.logical_axis_rules(LOGICAL_AXIS_RULES):
        return compiled.lower(state, None, batch, rate_of(config))
