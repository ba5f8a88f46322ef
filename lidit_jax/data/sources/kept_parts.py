"""Size-bounded cache of recently read file parts, for reading single records."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Generic, TypeVar

Part = TypeVar("Part")


class KeptParts(Generic[Part]):
    """LRU cache; each part is loaded by one thread, and others wait for it.

    A forked process starts with an empty cache.
    """

    def __init__(self, most_bytes: int, size: Callable[[Part], int]):
        """Set the limit; nothing is loaded yet.

        Args:
          most_bytes: limit of all parts together; the part used last is always kept.
          size: returns the bytes of a part.
        """
        self._most_bytes, self._size = most_bytes, size
        self._by_process: dict[int, _Kept[Part]] = {}

    def get(self, key: Hashable, load: Callable[[], Part]) -> Part:
        """Return a part, loaded if it is not cached. Exceptions of `load` are raised, not cached.

        Args:
          key: key of the part.
          load: reads the part.
        """
        process = os.getpid()
        kept = self._by_process.get(process)
        if kept is None:
            kept = self._by_process.setdefault(process, _Kept())
        with kept.lock:
            future = kept.parts.get(key)
            mine = future is None
            if future is None:
                future = kept.parts[key] = Future()
            kept.parts.move_to_end(key)
        if mine:
            try:
                future.set_result(load())
            except BaseException as error:
                with kept.lock:
                    kept.parts.pop(key, None)
                future.set_exception(error)
                raise
            with kept.lock:
                self._drop(kept)
        return future.result()

    def _drop(self, kept: _Kept[Part]) -> None:
        """Drop the least recently used parts."""
        done = [(key, future) for key, future in kept.parts.items() if future.done()]
        total = sum(self._size(future.result()) for _, future in done)
        for key, future in done[:-1]:
            if total <= self._most_bytes:
                return
            total -= self._size(future.result())
            del kept.parts[key]


class _Kept(Generic[Part]):
    """Cache of one process."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.parts: OrderedDict[Hashable, Future[Part]] = OrderedDict()
