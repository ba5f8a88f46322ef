"""The GPU's attention kernel against the reference: how far it is off, and how fast it is."""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lidit_jax.attention.gpu import gpu_attention
from lidit_jax.attention.reference import reference_attention
from lidit_jax.hardware.devices import peak_flops

Note = Callable[[dict[str, Any]], None]
_ROUNDS, _CALLS = 5, 10


class Case(NamedTuple):
    """Shapes of one call; letters as in `attention`."""

    B: int
    N: int
    S: int
    H: int
    K: int
    masked: bool = False
    causal: bool = False

    @property
    def told(self) -> str:
        """Such as "2 x 255 x 201, 16 heads of 72, masked"."""
        words = f"{self.B} x {self.N} x {self.S}, {self.H} heads of {self.K}"
        return words + ", masked" * self.masked + ", causal" * self.causal


_CASES = (
    Case(2, 256, 256, 16, 72),
    Case(2, 256, 256, 9, 128),
    Case(1, 4096, 4096, 16, 72),
    Case(2, 256, 200, 16, 72, masked=True),
    Case(2, 255, 201, 16, 72, masked=True),
    Case(2, 4096, 201, 9, 128, masked=True),
    Case(3, 77, 77, 4, 64, masked=True, causal=True),
    Case(2, 257, 257, 16, 72),
)
_TINY = (Case(2, 8, 8, 2, 8), Case(2, 7, 5, 2, 8, masked=True))
_TIMED = (
    Case(64, 256, 256, 16, 72),
    Case(64, 256, 256, 9, 128),
    Case(4, 4096, 4096, 16, 72),
    Case(4, 4096, 4096, 9, 128),
)


def errors(note: Note, *, tiny: bool = False) -> None:
    """Notes the errors of the kernel, and those of plain products in bfloat16 beside them.

    An error is the largest difference to the reference in float32 over its largest value, of the
    outputs and of the three gradients. One of the rows of a masked case has no valid key at all.

    Args:
      note: takes the rows so far.
      tiny: a few small cases.
    """
    cases = _TINY if tiny else _CASES
    # Every case compiles three programs, which takes the time of this part: all cores do it.
    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(_compiled, case) for case in cases]
    rows = []
    for case, future in zip(cases, futures, strict=True):
        row: dict[str, Any] = {"case": case.told}
        try:
            inputs, programs = future.result()
            exact, plain, kernel = (
                [np.asarray(x, np.float64) for x in program(*inputs)] for program in programs
            )
            row["kernel"] = _errors(kernel, exact)
            row["plain"] = _errors(plain, exact)
        except Exception as error:  # one shape that cuDNN refuses costs one row
            row["error"] = f"{type(error).__name__}: {error}"[:300]
        rows.append(row)
        note({"errors": rows, "kernel": _implementation()})


def times(note: Note, left: Callable[[], float], *, tiny: bool = False) -> None:
    """Notes times at the shapes of the model of 1 B parameters, forward and with the backward pass.

    Args:
      note: takes the rows so far.
      left: seconds left.
      tiny: one small case.
    """
    rows: list[dict[str, Any]] = []
    peak = peak_flops(jax.devices()[0])
    calls = {"kernel": _kernel, "plain": _plain}
    for case in _TINY[:1] if tiny else _TIMED:
        for name, call in calls.items():
            for backward in (False, True):
                if left() < 5:
                    note({"times_left_out": "no time for more"})
                    return
                row: dict[str, Any] = {"case": case.told, "who": name, "backward": backward}
                try:
                    row |= _timed(case, call, backward=backward)
                    # A product of the forward pass has two, of the backward pass four more.
                    flops = (12 if backward else 4) * case.B * case.H * case.N * case.S * case.K
                    row["flops_per_second"] = flops / row["median_seconds"]
                    row["mfu"] = row["flops_per_second"] / peak if peak else None
                except Exception as error:  # memory, of plain products
                    row["error"] = f"{type(error).__name__}: {error}"[:300]
                rows.append(row)
                note({"times": rows})


def _implementation() -> str:
    return "cudnn" if jax.devices()[0].platform == "gpu" else "xla"


def _kernel(q: Any, k: Any, v: Any, mask: Any, *, causal: bool) -> Any:
    return gpu_attention(q, k, v, mask, causal=causal, implementation=_implementation())


def _plain(q: Any, k: Any, v: Any, mask: Any, *, causal: bool) -> Any:
    return reference_attention(q, k, v, mask, causal=causal)


def _inputs(case: Case) -> tuple[Any, Any, Any, Any]:
    """Queries, keys and values in bfloat16, and the mask; made on the device."""
    keys = jax.random.split(jax.random.key(0), 3)
    shapes = ((case.B, n, case.H, case.K) for n in (case.N, case.S, case.S))
    q, k, v = (jax.random.normal(*pair, jnp.bfloat16) for pair in zip(keys, shapes, strict=True))
    if not case.masked:
        return q, k, v, None
    # The first prompt is as long as can be, the last has no token.
    lengths = np.linspace(case.S, 0, case.B).astype(int)
    return q, k, v, jnp.asarray(np.arange(case.S) < lengths[:, None])


def _both(call: Callable[..., Any], case: Case, *, exact: bool) -> Callable[..., Any]:
    """Outputs and gradients of a sum of squares, which weighs every output."""

    def total(q: Any, k: Any, v: Any, mask: Any) -> tuple[Any, Any]:
        out = call(q, k, v, mask, causal=case.causal)
        return jnp.sum(out.astype(jnp.float32) ** 2), out

    def program(q: Any, k: Any, v: Any, mask: Any) -> tuple[Any, ...]:
        if exact:
            q, k, v = (x.astype(jnp.float32) for x in (q, k, v))
        with jax.default_matmul_precision("highest" if exact else "default"):
            gradients, out = jax.grad(total, argnums=(0, 1, 2), has_aux=True)(q, k, v, mask)
        return tuple(x.astype(jnp.float32) for x in (out, *gradients))

    return program


def _compiled(case: Case) -> tuple[Any, list[Any]]:
    inputs = _inputs(case)
    programs = (
        _both(_plain, case, exact=True),
        _both(_plain, case, exact=False),
        _both(_kernel, case, exact=False),
    )
    return inputs, [jax.jit(program).lower(*inputs).compile() for program in programs]


def _errors(values: list[np.ndarray], exact: list[np.ndarray]) -> dict[str, float]:
    return {
        name: float(np.max(np.abs(a - b)) / np.max(np.abs(b)))
        for name, a, b in zip(("out", "dq", "dk", "dv"), values, exact, strict=True)
    }


def _timed(case: Case, call: Callable[..., Any], *, backward: bool) -> dict[str, float]:
    """Seconds of a call: median, fastest and slowest of a few rounds of several calls."""
    inputs = _inputs(case)
    forward = functools.partial(call, causal=case.causal)

    def total(*given: Any) -> Any:
        return jnp.sum(forward(*given).astype(jnp.float32) ** 2)

    program = jax.grad(total, argnums=(0, 1, 2)) if backward else forward
    step = jax.jit(program)
    jax.block_until_ready(step(*inputs))
    rounds = []
    for _ in range(_ROUNDS):
        begun = time.perf_counter()
        for _ in range(_CALLS):
            out = step(*inputs)
        jax.block_until_ready(out)
        rounds.append((time.perf_counter() - begun) / _CALLS)
    return {
        "median_seconds": statistics.median(rounds),
        "fastest_round_seconds": min(rounds),
        "slowest_round_seconds": max(rounds),
    }
