"""Accuracy and speed of the GPU's attention kernel, compared with the reference."""

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
    """Shapes of one call, with the letters of `attention`."""

    B: int
    N: int
    S: int
    H: int
    K: int
    masked: bool = False
    causal: bool = False

    @property
    def description(self) -> str:
        """Description such as "2 x 255 x 201, 16 heads of 72, masked"."""
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
"""Small cases: at 4,096 tokens the float32 reference compiles for minutes, for the same result."""
_TINY = (Case(2, 8, 8, 2, 8), Case(2, 7, 5, 2, 8, masked=True))
_AT_256 = Case(64, 256, 256, 16, 72), Case(64, 256, 256, 9, 128)
_AT_1024 = Case(4, 4096, 4096, 16, 72), Case(4, 4096, 4096, 9, 128)
_TIMED = (
    *((case, who, True) for case in _AT_256 for who in ("kernel", "plain")),
    *((case, "kernel", True) for case in _AT_1024),
    *((case, "kernel", False) for case in (*_AT_256, *_AT_1024)),
    *((case, "plain", True) for case in _AT_1024),
)
"""Programs in order of priority: shapes of the 1B model at 256 and 1024 px, the implementation, and
whether to run the backward pass too."""
_ENOUGH = 5.0
"""Seconds required to start one more program."""
_UNTUNED: dict[str, str | bool] = {"xla_gpu_autotune_level": "0"}
"""Compiler options for programs that run once: autotuning would take most of the time."""


def errors(note: Note, left: Callable[[], float], *, tiny: bool = False) -> None:
    """Report the errors of the kernel and, for comparison, of plain products in bfloat16.

    An error is the largest difference from the float32 reference over its largest value, for the
    outputs and of the three gradients. One sample of a masked case has no valid key.

    Args:
      note: called with all rows so far, after each row.
      left: returns the seconds left.
      tiny: whether to measure only a few small cases.
    """
    cases = _TINY if tiny else _CASES
    rows: list[dict[str, Any]] = []
    pool = ThreadPoolExecutor(min(len(os.sched_getaffinity(0)), 8))
    begun = {pool.submit(_compared, case): case for case in cases}
    try:
        for future in as_completed(begun, timeout=max(left() - _ENOUGH, 0.1)):
            row: dict[str, Any] = {"case": begun[future].description}
            if error := future.exception():  # a shape that cuDNN rejects fails one row only
                row["error"] = f"{type(error).__name__}: {error}"[:300]
            else:
                row |= future.result()
            rows.append(row)
            note({"errors": rows, "kernel": _implementation()})
    except TimeoutError:
        note({"errors_left_out": f"{len(cases) - len(rows)} cases: out of time"})
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def times(note: Note, left: Callable[[], float], *, tiny: bool = False) -> None:
    """Measure forward and training times at the shapes of the 1B model.

    Args:
      note: called with all rows so far, after each row.
      left: returns the seconds left.
      tiny: whether to measure only one small case.
    """
    rows: list[dict[str, Any]] = []
    peak = peak_flops(jax.devices()[0])
    calls = {"kernel": _kernel, "plain": _plain}
    small = [(_TINY[0], who, both) for who in calls for both in (True, False)]
    for case, who, backward in small if tiny else _TIMED:
        if left() < _ENOUGH:
            note({"times_left_out": "out of time"})
            return
        row: dict[str, Any] = {"case": case.description, "who": who, "backward": backward}
        try:
            row |= _timed(case, calls[who], backward=backward)
            # The forward pass has two products, the backward pass four more.
            flops = (12 if backward else 4) * case.B * case.H * case.N * case.S * case.K
            row["flops_per_second"] = flops / row["median_seconds"]
            row["mfu"] = row["flops_per_second"] / peak if peak else None
        except Exception as error:  # plain products may run out of memory
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
    """Return queries, keys, values in bfloat16, and the mask, drawn on the host without
    compiling."""
    random = np.random.default_rng(0)
    shapes = ((case.B, n, case.H, case.K) for n in (case.N, case.S, case.S))
    drawn = [random.standard_normal(shape, np.float32).astype(jnp.bfloat16) for shape in shapes]
    q, k, v = jax.device_put(drawn)
    if not case.masked:
        return q, k, v, None
    # The first prompt has the full length, the last has no tokens.
    lengths = np.linspace(case.S, 0, case.B).astype(int)
    return q, k, v, jax.device_put(np.arange(case.S) < lengths[:, None])


def _both(call: Callable[..., Any], case: Case, *, exact: bool) -> Callable[..., Any]:
    """Return a function of outputs and gradients of a sum of squares, which weights all outputs."""

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
    """Compute errors of the kernel and of plain products, in one program that compiles once."""
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
    """Return the median, fastest and slowest seconds per call, over a few rounds."""
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
