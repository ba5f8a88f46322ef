"""Collection of all errors in a user's folder, so that they are reported together."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lidit_jax.errors import LiditError

_TOLD = 10


class FileErrors:
    """Collector of the errors in a folder's files."""

    def __init__(self, folder: Path | str):
        self._folder = folder
        self._lines: list[str] = []

    def add(self, *lines: str) -> None:
        """Add errors; each line names the file and the remedy."""
        self._lines += lines

    @contextmanager
    def collect(self) -> Iterator[None]:
        """Catch a `LiditError` raised in the body and add it."""
        try:
            yield
        except LiditError as error:
            self.add(str(error))

    def raise_all(self) -> None:
        """Raise `LiditError` if there are errors; of many it names the first ten."""
        if len(self._lines) == 1:
            raise LiditError(self._lines[0])
        if self._lines:
            told = [line.replace(f"{self._folder}{os.sep}", "") for line in self._lines[:_TOLD]]
            if len(self._lines) > _TOLD:
                told.append(f"and {len(self._lines) - _TOLD} more")
            raise LiditError(f"{len(self._lines)} problems in {self._folder}: {'; '.join(told)}")
