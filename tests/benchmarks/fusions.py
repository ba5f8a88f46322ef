"""Whether XLA fuses what a block does between its products, or a Pallas kernel would gain there.

    python -m tests.benchmarks.fusions [--recipe lidit_10b:1024px] [--batch 2]

Compiled for one TPU by libtpu, which needs no TPU. Traffic is what the program reads and writes in
HBM, in units of one activation [B, N, D]; the least is what must be read and written when nothing
in between is kept. The backward pass gets the gradient of every result and gives that of every
activation and vector.
"""

import argparse
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import SingleDeviceSharding

from lidit_jax.config.load import load_recipe
from lidit_jax.models.layers import gated, layer_norm, modulate, rms_norm, rotate
from lidit_jax.planning.ahead_of_time import topology_devices
from lidit_jax.planning.hlo import parse_program
from lidit_jax.planning.hlo_cost import program_cost

SLICES = {"v5e": "v5e:2x2", "v5p": "v5p:2x2x1", "v6e": "v6e:2x2"}


def adaln(x, scale, shift):
    """The norm without a scale of its own, then scale and shift of the condition."""
    return modulate(layer_norm(x.dtype, affine=False, name="norm").apply({}, x), scale, shift)


def queries(q, scale):
    """RMS norm of each head."""
    return rms_norm(q.dtype, name="norm").apply({"params": {"scale": scale}}, q)


def turned_queries(q, scale, cos, sin):
    """The same, then rotary positions."""
    return rotate(queries(q, scale), cos, sin)


def branch(x, gate, h, scale, shift):
    """A branch joins the residual behind its gate, and the next one's norm follows."""
    x = gated(x, gate, h)
    return x, adaln(x, scale, shift)


def parts(recipe: str, batch: int) -> dict[str, tuple[Callable, list[Any], float, float]]:
    """Function, arguments, and the least traffic forward and with the backward pass."""
    config = load_recipe(recipe)
    model = config.model
    n, width, head = config.image_tokens, model.width, model.width // model.heads
    x = jax.ShapeDtypeStruct((batch, n, width), jnp.bfloat16)
    q = jax.ShapeDtypeStruct((batch, n, model.heads, head), jnp.bfloat16)
    vector = jax.ShapeDtypeStruct((batch, 1, width), jnp.float32)
    scale = jax.ShapeDtypeStruct((head,), jnp.float32)
    angle = jax.ShapeDtypeStruct((n, head), jnp.float32)
    return {
        # x in, h out; then x and dh in, dx out.
        "adaLN: norm, scale, shift": (adaln, [x, vector, vector], 2, 5),
        "RMS norm of the queries": (queries, [q, scale], 2, 5),
        "the same, then RoPE": (turned_queries, [q, scale, angle, angle], 2, 5),
        # x and h in, x and the norm out; then x, h and two gradients in, two out.
        "gated residual, next adaLN": (branch, [x, vector, x, vector, vector], 4, 10),
    }


def traffic(function: Callable, arguments: list[Any], device: jax.Device) -> float:
    """Bytes that the compiled program moves."""
    place = SingleDeviceSharding(device)
    placed = [jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=place) for a in arguments]
    text = jax.jit(function).lower(*placed).compile().as_text()
    return program_cost(parse_program(text)).bytes


def with_backward(function: Callable, results: Any) -> Callable:
    """The function and its gradients; the gradients of its results are the first arguments."""
    kind = jax.tree.structure(results)

    def both(*arguments: Any) -> tuple[Any, Any]:
        gradients, inputs = arguments[: kind.num_leaves], arguments[kind.num_leaves :]
        values, pull_back = jax.vjp(function, *inputs)
        return values, pull_back(jax.tree.unflatten(kind, gradients))

    return both


def main() -> None:
    """Prints a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", default="lidit_10b:1024px")
    parser.add_argument("--batch", type=int, default=2)
    options = parser.parse_args()
    print("| part | chip | forward (least) | with backward (least) |\n|---|---|---|---|")
    for name, (function, arguments, *least) in parts(options.recipe, options.batch).items():
        unit = math.prod(arguments[0].shape) * arguments[0].dtype.itemsize
        results = jax.eval_shape(function, *arguments)
        for chip, topology in SLICES.items():
            device = topology_devices(topology)[0]
            forward = traffic(function, arguments, device) / unit
            both = with_backward(function, results)
            whole = traffic(both, [*jax.tree.leaves(results), *arguments], device) / unit
            print(
                f"| {name} | {chip} | {forward:.2f} ({least[0]}) | {whole:.2f} ({least[1]}) |",
                flush=True,
            )


if __name__ == "__main__":
    main()
