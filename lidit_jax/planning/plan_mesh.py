"""Mesh of a plan: parsed from `--mesh`, from the recipe, or a default; and its validation."""

from __future__ import annotations

import math

from lidit_jax.config.schema import Config
from lidit_jax.errors import LiditError
from lidit_jax.hardware.topologies import Topology
from lidit_jax.parallel.mesh import AXES, nearest_divisors
from lidit_jax.planning.roofline import SCATTERED_ROWS, Split


def parse_mesh(text: str, config: Config, topology: Topology) -> Split:
    """Parse a mesh such as "fsdp=64,tensor=2"; `data` takes the devices left, `replica` the slices.

    Raises:
      LiditError: for an unknown or repeated axis, a size that is not a number, or one that does
        not fit.
    """
    sizes: dict[str, int] = {}
    for part in filter(None, text.split(",")):
        axis, _, size = part.partition("=")
        if axis not in AXES or not size.isdecimal() or int(size) == 0:
            raise LiditError(f"--mesh={text}: write AXIS=SIZE, AXIS being one of {', '.join(AXES)}")
        if axis in sizes:
            raise LiditError(f"--mesh={text}: {axis} is given twice")
        sizes[axis] = int(size)
    sizes.setdefault("replica", topology.slices)
    return _filled(sizes, f"--mesh={text}", config, topology)


def recipe_mesh(config: Config, topology: Topology) -> Split:
    """Return the recipe's mesh if it splits anything, else fsdp over as many devices of a slice as
    divide the width and leave each enough rows for the gradients to be reduce-scattered. `replica`
    is the number of slices.

    Raises:
      LiditError: when the recipe's mesh does not fit the topology.
    """
    mesh = config.mesh
    if mesh.fsdp == mesh.tensor == mesh.context == 1:
        width, devices = config.model.width, topology.devices // topology.slices
        largest = max(width // SCATTERED_ROWS, 1)
        fsdp = max(n for n in range(1, largest + 1) if math.gcd(width, devices) % n == 0)
        return parse_mesh(f"fsdp={fsdp}", config, topology)
    if mesh.replica not in (1, topology.slices):
        raise LiditError(
            f"the recipe is for {mesh.replica} slices (config.mesh.replica), the plan for "
            f"{topology.slices}: add --slices={mesh.replica}"
        )
    sizes = {axis: getattr(mesh, axis) for axis in AXES if getattr(mesh, axis) != -1}
    sizes["replica"] = topology.slices
    shown = ",".join(f"{axis}={size}" for axis, size in sizes.items() if size > 1)
    return _filled(sizes, f"config.mesh={shown}", config, topology)


def _filled(sizes: dict[str, int], given: str, config: Config, topology: Topology) -> Split:
    used = math.prod(size for axis, size in sizes.items() if axis != "data")
    if topology.devices % used:
        below = max(n for n in range(1, used + 1) if topology.devices % n == 0)
        raise LiditError(
            f"{given}: {used} does not divide the {topology.devices} devices of "
            f"{topology.name}, the nearest that does is {below}"
        )
    sizes.setdefault("data", topology.devices // used)
    return Split(**sizes, parts=config.training.accumulation)


def check_split(config: Config, topology: Topology, split: Split) -> None:
    """Check that a mesh divides the devices, the batch and the model.

    Raises:
      LiditError: when it does not; names what it must divide, and the nearest sizes that do.
    """
    sizes = [getattr(split, axis) for axis in AXES]
    if math.prod(sizes) != topology.devices:
        raise LiditError(
            f"--mesh: {' x '.join(map(str, sizes))} are not the {topology.devices} devices of "
            f"{topology.name}"
        )
    if topology.slices > 1 and split.replica != topology.slices:
        raise LiditError(
            f"--mesh: replica={split.replica}, but {topology.name} are {topology.slices} slices: "
            "leave it out"
        )
    chip, fast = topology.generation, split.tensor * split.context
    if chip.is_gpu and topology.shape[0] % fast:
        raise LiditError(
            f"--mesh: tensor x context={fast} must stay within a node: a divisor of the "
            f"{topology.shape[0]} GPUs of {topology.name}"
        )
    batch, unit = config.training.batch_size, split.rows * split.parts
    if batch % unit:
        nearest = max(round(batch / unit), 1) * unit
        raise LiditError(
            f"config.training.batch_size={batch} does not divide over {split.rows} devices and "
            f"{split.parts} parts: the nearest that does is {nearest}"
        )
    for axis, name, whole in (
        ("tensor", "config.model.heads", config.model.heads),
        ("fsdp", "config.model.width", config.model.width),
        ("context", "the tokens of an image", config.image_tokens),
    ):
        size = getattr(split, axis)
        if whole % size:
            near = " and ".join(map(str, nearest_divisors(whole, size)))
            raise LiditError(
                f"--mesh: {axis}={size} does not divide {name}={whole}: the nearest that do are "
                f"{near}"
            )
