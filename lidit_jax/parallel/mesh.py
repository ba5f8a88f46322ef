"""The device mesh of a run."""

import math

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from lidit_jax.config import MeshConfig
from lidit_jax.errors import LiditError

AXES = ("data", "fsdp", "tensor")
BATCH_AXES = ("data", "fsdp")


def make_mesh(config: MeshConfig) -> Mesh:
    """The mesh over all devices of all processes, axes `data`, `fsdp`, `tensor`.

    Its axes are `Auto`: under explicit axes, or under the old `with mesh:`, flax's logical
    constraints fail or silently vanish. Use it with `jax.set_mesh`.

    Raises:
      LiditError: when the sizes do not multiply to the number of devices.
    """
    sizes = [config.data, config.fsdp, config.tensor]
    devices = jax.device_count()
    if sizes.count(-1) > 1 or any(size == 0 or size < -1 for size in sizes):
        raise LiditError(
            f"config.mesh={dict(zip(AXES, sizes, strict=True))}: sizes are positive, one may be -1"
        )
    fixed = math.prod(size for size in sizes if size != -1)
    if -1 in sizes and devices % fixed == 0:
        sizes[sizes.index(-1)] = devices // fixed
    if math.prod(sizes) != devices:
        raise LiditError(
            f"config.mesh={dict(zip(AXES, sizes, strict=True))} does not fit {devices} devices: "
            "the sizes must multiply to that number (-1 takes what is left)"
        )
    return jax.make_mesh(tuple(sizes), AXES, axis_types=(AxisType.Auto,) * len(AXES))


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Sharding of arrays whose first axis is the batch."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def replicated(mesh: Mesh) -> NamedSharding:
    """Sharding of arrays that every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())
