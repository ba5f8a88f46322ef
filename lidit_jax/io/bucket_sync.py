"""Local staging of output files whose target folder may be in a bucket.

Objects cannot be appended to, so files that grow during a run are written locally and uploaded
again from time to time.
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
    """Local folder whose files are copied to a bucket; a local target is used directly."""

    def __init__(self, target: Path):
        """Create the folder, without downloading anything.

        Args:
          target: folder or bucket path of the files.
        """
        self._target = target
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self.folder = target
        """Local folder in which files are written."""
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
        """Download a file that an earlier start left in the bucket, if there is one."""
        if self._temporary and (self._target / name).exists():
            (self.folder / name).write_bytes((self._target / name).read_bytes())

    def upload(self) -> None:
        """Start copying files that have grown, in the background; large files less often."""
        if self._temporary and (self._running is None or self._running.done()):
            self._running = self._thread.submit(self._copy)

    def close(self) -> None:
        """Copy the remaining changes and wait for completion."""
        if not self._temporary:
            return
        self._thread.submit(self._copy, whole=True).result()
        self._thread.shutdown()
        self._temporary.cleanup()

    def _copy(self, whole: bool = False) -> None:
        """Copy each file that has grown, at most one megabyte per second on average."""
        for file in sorted(self.folder.rglob("*")):
            size = file.stat().st_size
            sent, when = self._sent.get(file, (-1, 0.0))
            if not file.is_file() or size == sent:
                continue
            now = time.monotonic()
            if not whole and sent >= 0 and now - when < size / _BYTES_PER_SECOND:
                continue
            # Store clients raise errors of their own; none of them should end a run.
            try:
                (self._target / file.relative_to(self.folder)).write_bytes(file.read_bytes())
            except Exception as error:
                if not self._failed:
                    reason = str(error).partition("\n")[0][:200]
                    print(f"{self._target} does not accept {file.name} ({reason}); uploaded later")
                self._failed = True
                return
            self._sent[file], self._failed = (size, now), False


@contextmanager
def local_staging(target: Path) -> Iterator[Path]:
    """Yield a local folder whose files are uploaded to the target, or a local target itself.

    Files are uploaded to a bucket after the body has succeeded.
    """
    if not in_bucket(target):
        yield target
        return
    with tempfile.TemporaryDirectory(prefix="lidit-") as name:
        yield Path(name)
        upload_folder(Path(name), target)


def upload_folder(folder: Path, target: Path) -> None:
    """Copy all files below a local folder to a target that may be in a bucket."""
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            copy = target / file.relative_to(folder)
            if not in_bucket(target):
                copy.parent.mkdir(parents=True, exist_ok=True)
            with file.open("rb") as source, copy.open("wb") as sink:
                shutil.copyfileobj(source, sink)
