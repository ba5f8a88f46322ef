"""From the logical axis names in the modules to mesh axes: the one table."""

from typing import Any

import flax.linen as nn
import jax
from jax.sharding import Mesh

from lidit_jax.parallel.mesh import BATCH_AXES

LOGICAL_AXIS_RULES = (
    ("batch", BATCH_AXES),
    ("embed", "fsdp"),
    ("features", None),
    ("heads", "tensor"),
    ("mlp", "tensor"),
    ("layers", None),
)


def state_shardings(boxed_shapes: Any, mesh: Mesh) -> Any:
    """Shardings of a state tree given as boxed shapes (`jax.eval_shape` of its initialisation).

    Arrays without logical names (scalars, keys, counters) are replicated.
    """
    specs = nn.get_partition_spec(boxed_shapes)
    return nn.logical_to_mesh_sharding(specs, mesh, LOGICAL_AXIS_RULES)


def shapes_on(mesh: Mesh, boxed_shapes: Any) -> Any:
    """Unboxed shapes that carry their shardings: what Orbax restores into."""
    return jax.tree.map(
        lambda shape, sharding: jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding),
        nn.unbox(boxed_shapes),
        state_shardings(boxed_shapes, mesh),
    )
