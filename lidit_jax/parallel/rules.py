"""Sharding rules from logical axis names to mesh axes."""

from typing import Any

import flax.linen as nn
import jax
from flax.linen.spmd import logical_to_mesh_sharding
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lidit_jax.errors import LiditError
from lidit_jax.parallel.mesh import BATCH_AXES

LOGICAL_AXIS_RULES = (
    ("batch", BATCH_AXES),
    ("copies", ("replica", "data")),
    ("tokens", "context"),
    ("embed", "fsdp"),
    ("features", None),
    ("heads", "tensor"),
    ("mlp", "tensor"),
    ("layers", None),
)


def state_shardings(boxed_shapes: Any, mesh: Mesh) -> Any:
    """Return the shardings of a state tree of boxed shapes (`jax.eval_shape` of initialization).

    Arrays without logical names (scalars, keys, counters) are replicated.
    """
    specs = nn.get_partition_spec(boxed_shapes)
    return logical_to_mesh_sharding(specs, mesh, LOGICAL_AXIS_RULES)


def shardings_that_divide(boxed_shapes: Any, mesh: Mesh) -> Any:
    """Return `state_shardings` for a frozen network of any size: an axis that is not divisible by
    its devices is replicated."""
    return jax.tree.map(
        lambda shape, sharding: NamedSharding(
            mesh, replicate_uneven(sharding.spec, shape.shape, mesh)
        ),
        nn.unbox(boxed_shapes),
        state_shardings(boxed_shapes, mesh),
    )


def replicate_uneven(spec: PartitionSpec, shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
    """Return the spec without the (single) mesh axes that do not divide their array axes."""
    return PartitionSpec(
        *(
            axis if axis is None or size % mesh.shape[axis] == 0 else None
            for axis, size in zip(spec, shape, strict=False)
        )
    )


def sharded_shapes(mesh: Mesh, boxed_shapes: Any) -> Any:
    """Return unboxed shapes with shardings, as restore targets for Orbax.

    Raises:
      LiditError: when an axis is not divisible by its devices.
    """

    def place(path: Any, shape: jax.ShapeDtypeStruct, sharding: NamedSharding) -> Any:
        try:
            sharding.shard_shape(shape.shape)
        except ValueError as error:
            raise LiditError(
                f"config.mesh: {jax.tree_util.keystr(path)} of shape {list(shape.shape)} does not "
                f"divide over {sharding.spec} of {dict(mesh.shape)}: choose sizes that divide it"
            ) from error
        return jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding)

    return jax.tree_util.tree_map_with_path(
        place, nn.unbox(boxed_shapes), state_shardings(boxed_shapes, mesh)
    )
