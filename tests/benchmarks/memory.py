"""Peak memory of this process that is really its own: pages of mapped files are left out."""

import threading
import time
from pathlib import Path

_EVERY_SECONDS = 0.002


class PeakMemory:
    """`with PeakMemory() as peak: ...` and then `peak.grown`, in bytes. Linux only.

    The kernel's own high-water mark counts mapped files too, which it takes back when it likes; so
    a thread looks at the anonymous memory instead, every two milliseconds.
    """

    def __enter__(self) -> "PeakMemory":
        self._stop = threading.Event()
        self._before = self._peak = anonymous_bytes()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def grown(self) -> int:
        """Highest use since the start, less the use at the start."""
        return self._peak - self._before

    def _watch(self) -> None:
        while not self._stop.is_set():
            self._peak = max(self._peak, anonymous_bytes())
            time.sleep(_EVERY_SECONDS)


def anonymous_bytes() -> int:
    """Memory of this process that no file stands behind."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/self/status has no RssAnon")
