"""Sharding of the frozen text encoders: logical axes by parameter name.

The mesh axes come from the same table as the trained model's (`rules.LOGICAL_AXIS_RULES`).
"""

from __future__ import annotations

from flax.linen.spmd import logical_to_mesh_axes
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lidit_jax.parallel.rules import LOGICAL_AXIS_RULES, replicate_uneven

_LOGICAL_AXES: dict[str, tuple[str | None, ...]] = {
    # The vocabulary axis is not sharded, so that each lookup is local to a device's channels.
    "embedding": (None, "embed"),
    "q": ("embed", "heads"),
    "k": ("embed", "heads"),
    "v": ("embed", "heads"),
    "o": ("heads", "embed"),
    "qkv": ("embed", "heads"),
    "gate": ("embed", "mlp"),
    "up": ("embed", "mlp"),
    "gate_up": ("embed", "mlp"),
    "down": ("mlp", "embed"),
    "q_bias": ("heads",),
    "k_bias": ("heads",),
    "v_bias": ("heads",),
    "up_bias": ("mlp",),
}
"""Axes of one block's parameters; norms and other small ones are replicated."""


def encoder_shardings(
    shapes: dict[str, tuple[int, ...]], mesh: Mesh | None
) -> dict[str, NamedSharding]:
    """Return the sharding of every parameter of an encoder, by path.

    An axis whose size is not divisible by its devices is replicated: frozen encoders come in any
    size, and unlike the trained model they may be replicated.

    Args:
      shapes: shape of every parameter, by path; those under `layers/` are stacked.
      mesh: the mesh of the run. Without one, or if it shards no weights, the result is empty:
        parameters are then on the default device, uncommitted.
    """
    if mesh is None or mesh.shape["fsdp"] * mesh.shape["tensor"] == 1:
        return {}
    return {path: NamedSharding(mesh, _spec(path, shape, mesh)) for path, shape in shapes.items()}


def _spec(path: str, shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
    *parents, name = path.split("/")
    logical = _LOGICAL_AXES.get(name, ())
    if parents:
        logical = ("layers", *logical)
    logical += (None,) * (len(shape) - len(logical))
    axes = logical_to_mesh_axes(logical, LOGICAL_AXIS_RULES)
    assert axes is not None  # as the names are not
    return replicate_uneven(axes, shape, mesh)
