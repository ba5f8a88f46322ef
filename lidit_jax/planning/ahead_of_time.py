"""The training step compiled for a TPU slice that is not there: libtpu does it on any Linux.

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
from lidit_jax.diffusion.dropout import sample_keys
from lidit_jax.errors import LiditError
from lidit_jax.models.flops import TextStream
from lidit_jax.models.lidit import LIDiT
from lidit_jax.parallel.mesh import batch_sharding, replicated
from lidit_jax.parallel.rules import LOGICAL_AXIS_RULES, shapes_on
from lidit_jax.training.optimizers import make_optimizer
from lidit_jax.training.step import make_train_step


def topology_devices(name: str, slices: int = 1) -> list[jax.Device]:
    """Stand-ins for the devices of a TPU slice such as "v5p:2x2x2", or of several slices.

    Raises:
      LiditError: when libtpu is not installed, or does not know the topology.
    """
    several = {"num_slices": slices} if slices > 1 else {}
    try:
        described = topologies.get_topology_desc(platform="tpu", topology_name=name, **several)
    except Exception as error:  # the plugin raises whatever it likes
        reason = str(error).splitlines()[0][:150]
        raise LiditError(
            f"libtpu cannot compile for {name}: {reason} (pip install 'lidit-jax[tpu]', Linux only)"
        ) from error
    return list(described.devices)


def lower_train_step(
    config: Config, mesh: Mesh, streams: Sequence[TextStream]
) -> jax.stages.Lowered:
    """The training step on cached latents and features, traced for the devices of `mesh`.

    It is the step of `lidit train` but for the dropping of captions and the loss's statistics.

    Args:
      config: the run.
      mesh: see `make_mesh`.
      streams: the text.
    """
    model = LIDiT(config.model, config.training.matmul)
    process = processes.from_config(config.diffusion)
    crop = tuple(stream.crop for stream in streams)

    def rows(count: int) -> dict[str, Any]:
        shape = jax.ShapeDtypeStruct
        return {
            "latent": shape((count, *config.latent_shape), jnp.float32),
            "index": shape((count,), jnp.int32),
            "features": tuple(shape((count, s.tokens, s.width), jnp.bfloat16) for s in streams),
            "masks": tuple(shape((count, s.tokens), jnp.bool_) for s in streams),
        }

    def init(key: jax.Array) -> Any:
        one = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), rows(1))
        inputs = one["latent"], jnp.zeros(1), one["features"], one["masks"]
        return model.init(key, *inputs, crop)["params"]

    def loss(params: Any, frozen: Any, batch: Any, key: jax.Array) -> tuple[jax.Array, dict]:
        del frozen
        time_key, noise_key = jax.random.split(key)
        x0, index = batch["latent"], batch["index"]
        t = jax.vmap(lambda k: process.sample_times(k, ()))(sample_keys(time_key, index))
        noise = jax.vmap(lambda k: jax.random.normal(k, x0.shape[1:]))(
            sample_keys(noise_key, index)
        )
        noisy, time = process.add_noise(x0, noise, t), process.model_time(t)
        out = model.apply({"params": params}, noisy, time, batch["features"], batch["masks"], crop)
        return jnp.mean(process.loss(out, x0, noise, t)), {}

    optimizer = make_optimizer(config)
    with nn.logical_axis_rules(LOGICAL_AXIS_RULES):
        boxed = jax.eval_shape(functools.partial(create_state, init, optimizer, config))
        state = shapes_on(mesh, boxed)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, state)
    split: NamedSharding = batch_sharding(mesh)
    batch = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=split),
        rows(config.training.batch_size),
    )
    step = make_train_step(loss, optimizer, config)
    compiled = jax.jit(step, donate_argnums=0, out_shardings=(shardings, replicated(mesh)))
    with jax.set_mesh(mesh), nn.logical_axis_rules(LOGICAL_AXIS_RULES):
        return compiled.lower(state, None, batch)
