"""Streaming of mapped weight files into device memory, one tensor after the other.

Every parameter is allocated once, sharded as it will be used; each tensor of the checkpoint is cut
into the shards of this host's devices, transferred in its file type, and cast, checked and written
into the parameter by the devices. The host never holds more than a few tensors.
"""

from __future__ import annotations

import collections
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec, Sharding

from lidit_jax.errors import LiditError
from lidit_jax.hardware.known_faults import HALF_PRECISION
from lidit_jax.weights.int8 import Int8Weight, quantize
from lidit_jax.weights.mapped_tensors import map_file
from lidit_jax.weights.placement import TensorPlacement, first_names

_PIECE_BYTES = 1 << 26
"""Most bytes per transferred piece of rows, for large tensors such as embeddings."""
_IN_FLIGHT = 2


def stream(
    placements: list[TensorPlacement],
    shapes: dict[str, tuple[int, ...]],
    dtype: str,
    shardings: Mapping[str, Sharding],
    progress: Callable[[int], None],
) -> dict[str, Any]:
    """Load all parameters from their tensors.

    Args:
      placements: one per tensor, in the order of the files.
      shapes: shape of every parameter, by its path.
      dtype: type of the result; "int8" keeps the linear maps of blocks as `Int8Weight` and the rest
        in bfloat16.
      shardings: of the parameters; one that is left out goes to the default device.
      progress: called with the bytes read so far.

    Returns:
      The parameters by their path.

    Raises:
      LiditError: when tensors are not finite; names them.
    """
    linear = {place.path for place in placements if place.transform == "transpose"}
    params = {
        path: _allocate(shape, dtype, shardings.get(path), path in linear)
        for path, shape in shapes.items()
    }
    finite: dict[str, list[jax.Array]] = collections.defaultdict(list)
    in_flight: collections.deque[jax.Array] = collections.deque()
    done, file, mapped = 0, None, None
    for place in placements:
        if mapped is None or place.tensor.file != file:
            file, mapped = place.tensor.file, map_file(place.tensor.file)
        values, sharding = place.arrange(place.tensor.view(mapped)), shardings.get(place.path)
        for start, piece in _pieces(values, sharding):
            first = start if place.index is None else place.index
            block = _put(piece, sharding)
            param = params[place.path]
            write = _writer(sharding, int8=isinstance(param, Int8Weight))
            params[place.path], good = write(param, block, first)
            finite[place.tensor.name].append(good)
            in_flight.append(good)
            if len(in_flight) > _IN_FLIGHT:  # else blocks pile up on the host
                in_flight.popleft().block_until_ready()
        done += place.tensor.nbytes
        progress(done)
    if broken := [name for name, flags in finite.items() if not all(flags)]:
        raise LiditError(
            f"{placements[0].tensor.file.parent} holds NaN or infinity in {len(broken)} tensors "
            f"({first_names(broken)}): download the model again"
        )
    return params


def _allocate(
    shape: tuple[int, ...], dtype: str, sharding: Sharding | None, linear: bool
) -> jax.Array | Int8Weight:
    if dtype != "int8":
        return jnp.zeros(shape, dtype, device=sharding)
    if not linear:
        return jnp.zeros(shape, jnp.bfloat16, device=sharding)
    of_values, of_scale = _int8_shardings(sharding)
    return Int8Weight(
        jnp.zeros(shape, jnp.int8, device=of_values),
        jnp.zeros((*shape[:-2], shape[-1]), jnp.float32, device=of_scale),
    )


def _int8_shardings(sharding: Sharding | None) -> tuple[Sharding | None, Sharding | None]:
    """Return the shardings of values and scales: scales are sharded like the output channels."""
    if not isinstance(sharding, NamedSharding):
        return sharding, sharding
    *before, _, output = sharding.spec
    return sharding, NamedSharding(sharding.mesh, PartitionSpec(*before, output))


def _pieces(values: np.ndarray, sharding: Sharding | None) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (start, part) along the first axis; equal in size, so the last may overlap."""
    rows = values.shape[0]
    whole = sharding is None or sharding.shard_shape(values.shape)[0] == rows
    size = max(_PIECE_BYTES * rows // max(values.nbytes, 1), 1)
    if size >= rows or not whole:
        yield 0, values
        return
    for start in range(0, rows, size):
        start = min(start, rows - size)
        yield start, values[start : start + size]


def _put(piece: np.ndarray, sharding: Sharding | None) -> jax.Array:
    """Transfer a piece to its devices; this host reads only the shards of its own devices."""

    dtype = _dtype_on_devices(piece.dtype, sharding)

    def read(index: tuple[slice, ...] | None) -> np.ndarray:
        # In file order: a transposing read would access the disk's pages at random.
        return np.array(piece if index is None else piece[index], dtype, order="K")

    if sharding is None:
        return jax.device_put(read(None))
    return jax.make_array_from_callback(piece.shape, sharding, read)


def _dtype_on_devices(dtype: np.dtype, sharding: Sharding | None) -> np.dtype:
    """Return the type for the transfer: that of the file, unless the devices cannot cast it."""
    if dtype != np.float16:
        return dtype
    device = next(iter(sharding.device_set)) if sharding else jax.devices()[0]
    return np.dtype(np.float32) if _half_precision_is_missing(device.platform) else dtype


@functools.cache
def _half_precision_is_missing(platform: str) -> bool:
    return HALF_PRECISION.happens(jax.local_devices(backend=platform))


@functools.cache
def _writer(sharding: Sharding | None, *, int8: bool) -> Callable[..., Any]:
    """Return `_write`, compiled so that a parameter keeps its memory and its sharding."""
    if not int8:
        return jax.jit(_write, donate_argnums=0, out_shardings=(sharding, None))
    shardings = (*_int8_shardings(sharding), None)
    compiled = jax.jit(_write_int8, donate_argnums=0, out_shardings=shardings)

    def write(param: Int8Weight, block: jax.Array, start: int) -> tuple[Int8Weight, jax.Array]:
        values, scale, finite = compiled(param, block, start)
        return Int8Weight(values, scale), finite

    return write


def _write_int8(
    param: Int8Weight, block: jax.Array, start: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Write a block at `start` into values and scales; return them and whether it is finite."""
    put = functools.partial(jax.lax.dynamic_update_slice_in_dim, start_index=start, axis=0)
    new = quantize(block)
    values, scale = put(param.values, new.values), put(param.scale, new.scale)
    return values, scale, jnp.isfinite(block).all()


def _write(param: jax.Array, block: jax.Array, start: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Write a block at `start` of the parameter's first axis; return it and whether the block is
    finite."""
    put = functools.partial(jax.lax.dynamic_update_slice_in_dim, start_index=start, axis=0)
    if block.dtype != param.dtype:
        new = block.astype(param.dtype)
        return put(param, new), jnp.isfinite(new).all()
    # XLA copies bits on a CPU three times as fast as bfloat16, and sums faster than it compares.
    bits = jnp.dtype(f"uint{8 * param.dtype.itemsize}")
    copied = put(param.view(bits), block.view(bits)).view(param.dtype)
    return copied, jnp.isfinite(jnp.sum(0 * block.astype(jnp.float32)))
