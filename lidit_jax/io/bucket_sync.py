"""Files that are written on this machine, for a folder that may lie in a bucket.

Nothing can be appended to an object, so what grows while a run goes on grows here, and the bucket
gets a new copy now and then.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from lidit_jax.io.paths import in_bucket

_BYTES_PER_SECOND = 1e6


class Staging:
    """Grows files in `folder`, and keeps copies of them in the target; a local target is it."""

    def __init__(self, target: Path):
        """Nothing is fetched yet.

        Args:
          target: where the files belong.
        """
        self._target = target
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self.folder = target
        """Where the files are written."""
        if in_bucket(target):
            self._temporary = tempfile.TemporaryDirectory(prefix="lidit-")
            self.folder = Path(self._temporary.name)
            self._sent: dict[Path, tuple[int, float]] = {}
            self._thread = ThreadPoolExecutor(1, "upload")
            self._running: Future[None] | None = None
            self._failed = False

    def __enter__(self) -> Staging:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def fetch(self, name: str) -> None:
        """Brings a file here that an earlier start has left in the bucket, if there is one."""
        if self._temporary and (self._target / name).exists():
            (self.folder / name).write_bytes((self._target / name).read_bytes())

    def upload(self) -> None:
        """Begins to copy what has grown; returns at once. A large file is not copied every time."""
        if self._temporary and (self._running is None or self._running.done()):
            self._running = self._thread.submit(self._copy)

    def close(self) -> None:
        """Copies what is left and waits for it."""
        if not self._temporary:
            return
        self._thread.submit(self._copy, whole=True).result()
        self._thread.shutdown()
        self._temporary.cleanup()

    def _copy(self, whole: bool = False) -> None:
        """Copies each file that has grown, at most a megabyte a second on average."""
        for file in sorted(self.folder.rglob("*")):
            size = file.stat().st_size
            sent, when = self._sent.get(file, (-1, 0.0))
            if not file.is_file() or size == sent:
                continue
            now = time.monotonic()
            if not whole and sent >= 0 and now - when < size / _BYTES_PER_SECOND:
                continue
            # The store's client has errors of its own; none of them is worth a run.
            try:
                (self._target / file.relative_to(self.folder)).write_bytes(file.read_bytes())
            except Exception as error:
                if not self._failed:
                    reason = str(error).partition("\n")[0][:200]
                    print(f"{self._target} does not take {file.name} ({reason}); kept for later")
                self._failed = True
                return
            self._sent[file], self._failed = (size, now), False


@contextmanager
def local_staging(target: Path) -> Iterator[Path]:
    """A folder of this machine whose files are in the target at the end: the target, if it is one.

    In a bucket they appear when the body has ended well.
    """
    if not in_bucket(target):
        yield target
        return
    with tempfile.TemporaryDirectory(prefix="lidit-") as name:
        yield Path(name)
        upload_folder(Path(name), target)


def upload_folder(folder: Path, target: Path) -> None:
    """Copies all files below a local folder to a place that may lie in a bucket."""
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            copy = target / file.relative_to(folder)
            if not in_bucket(target):
                copy.parent.mkdir(parents=True, exist_ok=True)
            with file.open("rb") as source, copy.open("wb") as sink:
                shutil.copyfileobj(source, sink)
