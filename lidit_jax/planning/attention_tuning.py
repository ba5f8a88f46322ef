"""Search for attention tile sizes, ranked by measured time on a TPU or by compiled schedules.

libtpu can write the final schedule of every kernel that it compiles, in bundles of instructions
that issue one per cycle. A kernel's step holds one tile of queries and one of keys; it takes as
many cycles as it has bundles, or as its products take at the matrix units' full speed, whichever
is more, if nothing waits for memory. Tiles that exceed the core's vector memory do not compile.
"""

from __future__ import annotations

import itertools
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import jax
import jax.numpy as jnp

from lidit_jax.attention.tiles import LANES, Tiles, padded
from lidit_jax.attention.tuned import Shape
from lidit_jax.errors import LiditError

SMALLEST_SLICE = {"v4": "v4:2x2x1", "v5e": "v5e:2x2", "v5p": "v5p:2x2x1", "v6e": "v6e:2x2"} | {
    "tpu7x": "tpu7x:2x2x1"
}
_HEADS = 2
_PRODUCTS = {"splash_mha_fwd": 2, "splash_mha_dkv": 5}
"""Matrix products per tile of scores in the forward and in the fused backward kernel."""
_FLOPS_A_CYCLE = {"v4": 2**17, "v5e": 2**17, "v5p": 2**17, "v6e": 2**19, "tpu7x": 2**19}
"""Peak operations per cycle of one core's matrix units."""
_STEP_CYCLES = 500
"""Cycles of overhead per kernel step: a third of a microsecond."""


@dataclass(frozen=True)
class Ranked:
    """Tile sizes and their cost for one head, forward and backward."""

    tiles: Tiles
    cycles: float | None = None
    """Cycles by the compiler's schedule; None where the tiles do not compile."""
    seconds: float | None = None
    """Seconds measured on this machine's TPU."""
    vector_memory: int = 0
    """Bytes of vector memory that the larger of the two kernels uses."""

    @property
    def cost(self) -> float:
        """Value to rank by: measured seconds or scheduled cycles."""
        known = self.seconds if self.seconds is not None else self.cycles
        return float("inf") if known is None else known


def candidates(shape: Shape) -> list[Tiles]:
    """List the tile sizes to compare: powers of two and whole sequences, up to 4096 tokens."""
    whole_q, whole_k = padded(shape.queries, LANES), padded(shape.keys, LANES)
    queries = {n for n in (256, 512, 1024, 2048) if n <= whole_q} | {min(whole_q, 2048)}
    keys = {n for n in (512, 1024, 2048, 4096) if n <= whole_k} | {min(whole_k, 4096)}
    found = []
    for query, key in itertools.product(sorted(queries), sorted(keys)):
        for compute in (256, 512, 1024):
            # Less than a sixteenth of padding; the kernel takes whole inner products only.
            small = all(
                padded(length, tile) <= 1.07 * padded(length, LANES)
                for length, tile in ((shape.queries, query), (shape.keys, key))
            )
            if small and (key % compute == 0 or compute == 256):
                found.append(Tiles(query, key, compute if key % compute == 0 else LANES))
    return list(dict.fromkeys(found))


def rank(shape: Shape, tiles: Iterable[Tiles], *, on_device: bool) -> Iterator[Ranked]:
    """Yield each tile size with its cost as soon as it is found.

    Args:
      shape: the attention.
      tiles: to compare.
      on_device: time them on this machine's TPU, else compile them for a slice of the generation.

    Raises:
      LiditError: when libtpu is not installed.
    """
    for one in tiles:
        yield _timed(shape, one) if on_device else _compiled(shape, one)


def _timed(shape: Shape, tiles: Tiles) -> Ranked:
    keys = jax.random.split(jax.random.key(0), 3)
    lengths = (shape.queries, shape.keys, shape.keys)
    inputs = [
        jax.random.normal(key, (1, length, _HEADS, shape.head_width), jnp.bfloat16)
        for key, length in zip(keys, lengths, strict=True)
    ]
    step = jax.jit(_both_passes(shape, tiles))
    try:
        jax.block_until_ready(step(*inputs))
    except Exception:  # the compiler's errors have no type of their own
        return Ranked(tiles)
    rounds = []
    for _ in range(5):
        start = time.perf_counter()
        results = [step(*inputs) for _ in range(20)]
        jax.block_until_ready(results)
        rounds.append((time.perf_counter() - start) / 20 / _HEADS)
    return Ranked(tiles, seconds=statistics.median(rounds))


def _compiled(shape: Shape, tiles: Tiles) -> Ranked:
    """Compile in a subprocess, because libtpu reads the schedule folder only when it is loaded."""
    with tempfile.TemporaryDirectory() as folder:
        request = json.dumps({"shape": asdict(shape), "tiles": asdict(tiles), "folder": folder})
        done = subprocess.run(
            [sys.executable, "-m", __name__, request], capture_output=True, text=True, check=False
        )
        if done.returncode:
            if "VMEM" in done.stderr.upper() or "RESOURCE_EXHAUSTED" in done.stderr:
                return Ranked(tiles)
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise LiditError(f"cannot compile attention for {shape.generation}: {last[:200]}")
        cycles = 0.0
        for kernel in _PRODUCTS:
            (file,) = Path(folder).glob(f"*{kernel}*[0-9]-final_bundles.txt")
            cycles += kernel_cycles(shape, tiles, kernel, file.read_text())
        return Ranked(tiles, cycles=cycles, vector_memory=int(done.stdout.split()[-1]))


def kernel_cycles(shape: Shape, tiles: Tiles, kernel: str, schedule: str) -> float:
    """Return the cycles that a kernel takes for one head, from its schedule of bundles."""
    queries = padded(shape.queries, tiles.query) // tiles.query
    keys = padded(shape.keys, tiles.key) // tiles.key
    work, around = scheduled_bundles(schedule)
    product = 2 * tiles.query * tiles.key * padded(shape.head_width, LANES)
    products = _PRODUCTS[kernel] * product / _FLOPS_A_CYCLE[shape.generation]
    # Rows of tiles are rows of queries forward, and of keys backward.
    rows = queries if kernel == "splash_mha_fwd" else keys
    return queries * keys * (max(work, products) + _STEP_CYCLES) + rows * around


def scheduled_bundles(schedule: str) -> tuple[int, int]:
    """Count the bundles that run per tile, and those that run per row of tiles.

    The largest region between two branches runs per tile; the others run once per row.
    """
    starts = [0]
    last = 0
    for line in schedule.splitlines():
        bundle = re.match(r"\s*(0x[0-9a-f]+|0)\s+(LB|LH|LE|PB|PF)?:", line)
        if bundle:
            last = int(bundle[1], 16)
            if bundle[2]:
                starts.append(last)
    sizes = [b - a for a, b in itertools.pairwise([*starts, last + 1])]
    return max(sizes), sum(sizes) - max(sizes)


def _both_passes(shape: Shape, tiles: Tiles):
    from lidit_jax.attention.splash import splash_attention

    def loss(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        out = splash_attention(q, k, v, generation=shape.generation, tiles=tiles)
        return jnp.sum(out.astype(jnp.float32))

    return jax.grad(loss, argnums=(0, 1, 2))


def _compile(request: dict) -> None:
    """Compile both kernels and print the vector memory of the larger one."""
    import os

    flags = {
        "xla_jf_dump_to": request["folder"],
        "xla_jf_dump_llo_text": "true",
        "xla_jf_dump_llo_pass_label_regex": "final_bundles",
    }
    shown = " ".join(f"--{name}={value}" for name, value in flags.items())
    os.environ["LIBTPU_INIT_ARGS"] = f"{os.environ.get('LIBTPU_INIT_ARGS', '')} {shown}"
    os.environ["JAX_PLATFORMS"] = "cpu"
    from jax.sharding import NamedSharding, PartitionSpec

    from lidit_jax.config.schema import MeshConfig
    from lidit_jax.parallel.mesh import make_mesh
    from lidit_jax.planning.ahead_of_time import topology_devices

    shape, tiles = Shape(**request["shape"]), Tiles(**request["tiles"])
    mesh = make_mesh(MeshConfig(), topology_devices(SMALLEST_SLICE[shape.generation])[:1])
    whole = NamedSharding(mesh, PartitionSpec())
    inputs = [
        jax.ShapeDtypeStruct((1, length, _HEADS, shape.head_width), jnp.bfloat16, sharding=whole)
        for length in (shape.queries, shape.keys, shape.keys)
    ]
    with jax.set_mesh(mesh):
        text = jax.jit(_both_passes(shape, tiles)).lower(*inputs).compile().as_text()
    assert text is not None  # other compilers than libtpu may have none
    kernels = re.findall(
        r'"used_scoped_memory_configs":\[\{"memory_space":"1","offset":"\d+","size":"(\d+)"',
        text,
    )
    print(max((int(size) for size in kernels), default=0))


if __name__ == "__main__":
    _compile(json.loads(sys.argv[1]))
