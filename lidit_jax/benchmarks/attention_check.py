"""The GPU's attention kernel against the reference: how far it is off, and how fast it is."""

from __future__ import annotations

import functools
import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any, Literal, NamedTuple

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
    def description(self) -> str:
        """Such as "2 x 255 x 201, 16 heads of 72, masked"."""
        words = f"{self.B} x {self.N} x {self.S}, {self.H} heads of {self.K}"
        return words + ", masked" * self.masked + ", causal" * self.causal


_CASES = (
    Case(2, 256, 256, 16, 72),
    Case(2, 255, 201, 16, 72, masked=True),
    Case(2, 256, 256, 9, 128),
    Case(2, 256, 200, 16, 72, masked=True),
    Case(2, 512, 201, 9, 128, masked=True),
    Case(3, 77, 77, 4, 64, masked=True, causal=True),
    Case(2, 257, 257, 16, 72),
)
"""Small: the reference in float32 takes minutes to build at 4,096 tokens, and tells no more."""
_TINY = (Case(2, 8, 8, 2, 8), Case(2, 7, 5, 2, 8, masked=True))
_AT_256 = Case(64, 256, 256, 16, 72), Case(64, 256, 256, 9, 128)
_AT_1024 = Case(4, 4096, 4096, 16, 72), Case(4, 4096, 4096, 9, 128)
_TIMED = (
    *((case, who, True) for case in _AT_256 for who in ("kernel", "plain")),
    *((case, "kernel", True) for case in _AT_1024),
    *((case, "kernel", False) for case in (*_AT_256, *_AT_1024)),
    *((case, "plain", True) for case in _AT_1024),
)
"""Shapes of the model of 1 B parameters at 256 and 1024 px, who, and whether both passes: each is
a program, in the order of their worth."""
_ENOUGH = 5.0
"""Seconds that must be left for one more program."""
_UNTUNED: dict[str, str | bool] = {"xla_gpu_autotune_level": "0"}
"""For programs that are run once: trying out products would take most of the time."""


def errors(note: Note, left: Callable[[], float], *, tiny: bool = False) -> None:
    """Notes the errors of the kernel, and those of plain products in bfloat16 beside them.

    An error is the largest difference to the reference in float32 over its largest value, of the
    outputs and of the three gradients. One of the rows of a masked case has no valid key at all.

    Args:
      note: takes the rows so far, each as soon as it is known.
      left: seconds left.
      tiny: a few small cases.
    """
    cases = _TINY if tiny else _CASES
    rows: list[dict[str, Any]] = []
    pool = ThreadPoolExecutor(min(len(os.sched_getaffinity(0)), 8))
    begun = {pool.submit(_compared, case): case for case in cases}
    try:
        for future in as_completed(begun, timeout=max(left() - _ENOUGH, 0.1)):
            row: dict[str, Any] = {"case": begun[future].description}
            if error := future.exception():  # one shape that cuDNN refuses costs one row
                row["error"] = f"{type(error).__name__}: {error}"[:300]
            else:
                row |= future.result()
            rows.append(row)
            note({"errors": rows, "kernel": _implementation()})
    except TimeoutError:
        note({"errors_left_out": f"{len(cases) - len(rows)} cases: no time for more"})
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def times(note: Note, left: Callable[[], float], *, tiny: bool = False) -> None:
    """Notes times at the shapes of the model of 1 B parameters, forward and with the backward pass.

    Args:
      note: takes the rows so far, each as soon as it is known.
      left: seconds left.
      tiny: one small case.
    """
    rows: list[dict[str, Any]] = []
    peak = peak_flops(jax.devices()[0])
    calls = {"kernel": _kernel, "plain": _plain}
    small = [(_TINY[0], who, both) for who in calls for both in (True, False)]
    for case, who, backward in small if tiny else _TIMED:
        if left() < _ENOUGH:
            note({"times_left_out": "no time for more"})
            return
        row: dict[str, Any] = {"case": case.description, "who": who, "backward": backward}
        try:
            row |= _timed(case, calls[who], backward=backward)
            # A product of the forward pass has two, of the backward pass four more.
            flops = (12 if backward else 4) * case.B * case.H * case.N * case.S * case.K
            row["flops_per_second"] = flops / row["median_seconds"]
            row["mfu"] = row["flops_per_second"] / peak if peak else None
        except Exception as error:  # memory, of plain products
            row["error"] = f"{type(error).__name__}: {error}"[:300]
        rows.append(row)
        note({"times": rows})


def _implementation() -> Literal["cudnn", "xla"]:
    return "cudnn" if jax.devices()[0].platform == "gpu" else "xla"


def _kernel(q: Any, k: Any, v: Any, mask: Any, *, causal: bool) -> Any:
    return gpu_attention(q, k, v, mask, causal=causal, implementation=_implementation())


def _plain(q: Any, k: Any, v: Any, mask: Any, *, causal: bool) -> Any:
    return reference_attention(q, k, v, mask, causal=causal)


def _inputs(case: Case) -> tuple[Any, Any, Any, Any]:
    """Queries, keys and values in bfloat16, and the mask; drawn by the host, which compiles
    nothing for it."""
    random = np.random.default_rng(0)
    shapes = ((case.B, n, case.H, case.K) for n in (case.N, case.S, case.S))
    drawn = [random.standard_normal(shape, np.float32).astype(jnp.bfloat16) for shape in shapes]
    q, k, v = jax.device_put(drawn)
    if not case.masked:
        return q, k, v, None
    # The first prompt is as long as can be, the last has no token.
    lengths = np.linspace(case.S, 0, case.B).astype(int)
    return q, k, v, jax.device_put(np.arange(case.S) < lengths[:, None])


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


def _compared(case: Case) -> dict[str, dict[str, float]]:
    """Errors of the kernel and of plain products; all three in one program, which is built once."""
    inputs = _inputs(case)
    exact = _both(_plain, case, exact=True)
    plain = _both(_plain, case, exact=False)
    kernel = _both(_kernel, case, exact=False)

    def program(*given: Any) -> tuple[Any, ...]:
        return exact(*given), plain(*given), kernel(*given)

    options = _UNTUNED if _implementation() == "cudnn" else None
    outputs = jax.jit(program).lower(*inputs).compile(options)(*inputs)
    expected, *others = ([np.asarray(x, np.float64) for x in part] for part in outputs)
    return {
        who: _errors(part, expected) for who, part in zip(("plain", "kernel"), others, strict=True)
    }


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
    out = jax.block_until_ready(step(*inputs))
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
