"""Compilation of programs ahead of their first use, in a background thread.

A compiled program accepts the shapes that it was compiled for and no others, so that nothing is
compiled later without notice.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

import jax
from jax.sharding import Sharding


class Lowered(Protocol):
    """A traced program, as `jax.jit(...).lower(...)` returns it."""

    def compile(self) -> Any:
        """Return the executable."""
        ...


class CompileAhead:
    """Compiles programs one after another in one thread, and returns each when it is ready.

    All processes of a job must add the same programs in the same order.
    """

    def __init__(self) -> None:
        """Start without programs; the thread begins with the first."""
        self._thread = ThreadPoolExecutor(1, "compile")
        self._programs: dict[str, Future[Any]] = {}
        self._finished: deque[tuple[str, float]] = deque()
        self.count = 0
        """Number of compiled programs of which `news` has told."""
        self.seconds = 0.0
        """Seconds that tracing and compiling them took."""

    def __enter__(self) -> CompileAhead:
        return self

    def __exit__(self, *_: object) -> None:
        """Drop the programs that are not yet begun, and wait for the one in progress."""
        self._thread.shutdown(cancel_futures=True)

    def add(self, name: str, lower: Callable[[], Lowered]) -> None:
        """Queue a program.

        Args:
          name: for `get`, and for messages: "the step for 512x768 px".
          lower: traces it; called in the other thread, which has no mesh of its own.
        """
        self._programs[name] = self._thread.submit(self._compile, name, lower)

    def get(self, name: str, tell: Callable[[str], None]) -> Any:
        """Return a program, waiting for it if necessary.

        Args:
          name: of the program, which was added.
          tell: receives a line if there is something to wait for.
        """
        program = self._programs[name]
        if not program.done():
            tell(f"compiling {name}; on a CPU this takes about half a minute")
        return program.result()

    def news(self) -> list[str]:
        """Return a line for each program that was finished since the last call."""
        lines = []
        while self._finished:
            name, seconds = self._finished.popleft()
            self.count += 1
            self.seconds += seconds
            place = f" ({self.count} of {len(self._programs)})"
            lines.append(f"compiled {name} in {seconds:.1f} s{place}")
        return lines

    def _compile(self, name: str, lower: Callable[[], Lowered]) -> Any:
        begun = time.perf_counter()
        program = lower().compile()
        self._finished.append((name, time.perf_counter() - begun))
        return program


def abstract(tree: Any, sharding: Sharding | None = None) -> Any:
    """Return the shapes, types and shardings of arrays, to compile a program for them.

    Args:
      tree: arrays, or their shapes and types.
      sharding: of all of them; None for each one's own.
    """

    def described(leaf: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding or leaf.sharding)

    return jax.tree.map(described, tree)
