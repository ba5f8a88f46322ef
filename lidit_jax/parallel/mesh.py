"""Device mesh of a run."""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from lidit_jax.config.schema import Config, MeshConfig
from lidit_jax.errors import LiditError
from lidit_jax.hardware.devices import disable_unsafe_compilation_cache
from lidit_jax.hardware.jax_device import JaxDevice

AXES = ("replica", "data", "fsdp", "context", "tensor")
"""Mesh axes, from the slowest network to the fastest: slices, data parallel, FSDP, image tokens,
attention heads."""
BATCH_AXES = ("replica", "data", "fsdp")


def make_mesh(config: MeshConfig, devices: Sequence[JaxDevice] | None = None) -> Mesh:
    """Build the mesh with axes `AXES` over `devices`, or over all devices of all processes.

    The axes are `Auto`: under explicit axes, or under the old `with mesh:`, flax's logical
    constraints fail or are silently ignored. Use it with `jax.set_mesh`.

    Raises:
      LiditError: when the sizes do not multiply to the number of devices, or `replica` is not the
        number of slices.
    """
    shown = {axis: getattr(config, axis) for axis in AXES}
    sizes = list(shown.values())
    devices = jax.devices() if devices is None else list(devices)
    if sizes.count(-1) > 1 or any(size == 0 or size < -1 for size in sizes):
        raise LiditError(f"config.mesh={shown}: sizes are positive, one may be -1")
    fixed = math.prod(size for size in sizes if size != -1)
    if -1 in sizes and len(devices) % fixed == 0:
        sizes[sizes.index(-1)] = len(devices) // fixed
    if math.prod(sizes) != len(devices):
        raise LiditError(
            f"config.mesh={shown} does not fit {len(devices)} devices: "
            "the sizes must multiply to that number (-1 stands for the rest)"
        )
    disable_unsafe_compilation_cache(devices)
    types = (AxisType.Auto,) * len(AXES)
    slices = len({getattr(device, "slice_index", 0) for device in devices})
    if slices == 1:
        # A mesh axis may be part of a torus axis: 64 x 4 on a slice of 16 x 16.
        arranged = mesh_utils.create_device_mesh(sizes, devices, allow_split_physical_axes=True)
        return Mesh(arranged, AXES, axis_types=types)
    if sizes[0] != slices:
        raise LiditError(
            f"config.mesh.replica={sizes[0]}, but the devices are {slices} slices: set it to that"
        )
    within, across = (1, *sizes[1:]), (slices, *[1] * (len(sizes) - 1))
    arranged = mesh_utils.create_hybrid_device_mesh(
        within, across, devices, allow_split_physical_axes=True
    )
    return Mesh(arranged, AXES, axis_types=types)


def own_mesh() -> Mesh:
    """Return a mesh of the devices of this process, among which frozen weights are sharded.

    For work that processes do independently, without waiting for each other's devices.
    """
    devices = jax.local_devices()
    return make_mesh(MeshConfig(data=1, fsdp=len(devices)), devices)


def check_divisions(config: Config, mesh: Mesh) -> None:
    """Check that the mesh divides the batch and the sharded axes of the model.

    Raises:
      LiditError: names the axis, what it must divide, and the nearest sizes that do.
    """
    training = config.training
    rows = math.prod(mesh.shape[axis] for axis in BATCH_AXES)
    if training.batch_size % (rows * training.accumulation):
        unit = rows * training.accumulation
        raise LiditError(
            f"config.training.batch_size={training.batch_size} does not divide over {rows} "
            f"devices{f' and {training.accumulation} parts' if training.accumulation > 1 else ''}: "
            f"take a multiple of {unit}, such as {max(round(training.batch_size / unit), 1) * unit}"
        )
    if training.task == "lidit":
        check_model_divides(config, mesh)
    else:
        _check_divides(mesh, "fsdp", "config.vae.width", config.vae.width)


def check_model_divides(config: Config, mesh: Mesh) -> None:
    """Check that the mesh divides the sharded axes of LI-DiT.

    Raises:
      LiditError: names the axis, what it must divide, and the nearest sizes that do.
    """
    model = config.model
    for axis, name, whole in (
        ("tensor", "config.model.heads", model.heads),
        ("fsdp", "config.model.width", model.width),
        ("context", "the tokens of an image", config.image_tokens),
    ):
        _check_divides(mesh, axis, name, whole)


def check_shapes_divide(config: Config, mesh: Mesh, shapes: Sequence[tuple[int, int]]) -> None:
    """Check that context parallelism divides the tokens of every image shape of LI-DiT.

    Args:
      config: of the run.
      mesh: of all devices.
      shapes: height and width of the images, in pixels.

    Raises:
      LiditError: names the first shape that it does not divide.
    """
    context = mesh.shape["context"] if config.training.task == "lidit" else 1
    for height, width in shapes:
        tokens = config.image_tokens * height * width // config.data.image_size**2
        if tokens % context:
            raise LiditError(
                f"config.mesh.context={context} does not divide the {tokens} tokens of images of "
                f"{width}x{height} px: set config.data.buckets.shapes=1 for squares only, or "
                "another config.mesh.context"
            )


def _check_divides(mesh: Mesh, axis: str, name: str, whole: int) -> None:
    size = mesh.shape[axis]
    if whole % size:
        nearest = " and ".join(map(str, nearest_divisors(whole, size)))
        raise LiditError(
            f"config.mesh.{axis}={size} does not divide {name}={whole}: "
            f"the nearest that do are {nearest}"
        )


def nearest_divisors(whole: int, size: int) -> list[int]:
    """Return the next smaller and the next larger divisor of `whole` around `size`."""
    divisors = [d for d in range(1, whole + 1) if whole % d == 0]
    below, above = ([d for d in divisors if d < size], [d for d in divisors if d > size])
    return below[-1:] + above[:1]


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Return the sharding of arrays whose first axis is the batch."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def replicated(mesh: Mesh) -> NamedSharding:
    """Return the sharding of arrays that are replicated on every device."""
    return NamedSharding(mesh, PartitionSpec())
