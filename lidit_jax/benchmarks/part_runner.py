"""Runs the parts of a long measurement, each in processes of its own with a limit, in order of
worth, and keeps what is known as it comes: a part that fails, hangs or is killed costs its row."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lidit_jax.benchmarks.results_page import JSON_FILE, write_page
from lidit_jax.io.output import atomic_file

LOGS = "logs.txt"
_HEAD, _TAIL = 50_000, 150_000
"""Bytes kept of the beginning and of the end of what a part prints."""
_ERROR_LINES = 12
_KEPT = "measured by an earlier call"
_POLL = 0.2
"""Seconds between looks at a running part."""
_RESERVE = 3.0
"""Seconds kept to end the last part and to write the page."""


_SAME = ("device", "driver", "versions", "tiny")
"""Of the head of a page: where one differs, figures are measured anew."""


@dataclass(frozen=True)
class Part:
    """One row of the page."""

    name: str
    title: str
    command: Sequence[str]
    """Of its process; the word FACTS becomes the file where it leaves what it knows, as JSON."""
    least: float
    """Seconds that must be left for it to start."""
    limit: float
    """Seconds after which it is killed."""
    description: str = ""
    """What was cut down, and why."""
    environment: Mapping[str, str] = field(default_factory=dict)


class PartRunner:
    """Runs parts one after the other, and rewrites the page whenever there is more to say."""

    def __init__(self, out: Path, seconds: float, about: Mapping[str, Any]):
        """Starts the clock and writes a page without rows.

        Args:
          out: folder of the page.
          seconds: the whole budget, a hard bound.
          about: circumstances, for the head of the page.
        """
        self._out, self._begun = out, time.monotonic()
        self._deadline = self._begun + seconds
        self.page: dict[str, Any] = {"about": dict(about), "parts": []}
        self._running: subprocess.Popen[bytes] | None = None
        (out / LOGS).write_bytes(b"")
        self.write()

    @property
    def left(self) -> float:
        """Seconds left for parts."""
        return self._deadline - _RESERVE - time.monotonic()

    def extend(self, seconds: float) -> None:
        """Sets the budget to so many seconds from now: those that were left are given up."""
        self._deadline = time.monotonic() + seconds

    def tell(self, **about: Any) -> None:
        """Adds circumstances to the head of the page."""
        self.page["about"] |= about
        self.write()

    def write(self) -> None:
        """Writes the page as it is now."""
        self.page["about"]["seconds"] = round(time.monotonic() - self._begun, 1)
        write_page(self._out, self.page)

    def keep(self, row: Mapping[str, Any]) -> None:
        """Shows what an earlier call has measured."""
        others = [
            one for one in (row.get("description") or "").split("; ") if one not in ("", _KEPT)
        ]
        self.page["parts"].append(dict(row) | {"description": "; ".join([*others, _KEPT])})
        self.write()

    def run(self, part: Part) -> dict[str, Any]:
        """Runs a part if there is time for it.

        Returns:
          What it left, or nothing.
        """
        row: dict[str, Any] = {
            "name": part.name,
            "title": part.title,
            "description": part.description,
        }
        self.page["parts"].append(row)
        if self.left < part.least:
            row["status"] = "skipped"
            row["error"] = f"{max(self.left, 0):.0f} s were left, it takes at least {part.least:g}"
            self.write()
            return {}
        print(f"{part.title} (at most {min(part.limit, self.left):.0f} s)", flush=True)
        row["status"] = "running"
        self.write()
        begun = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            facts, log = Path(folder) / "facts.json", Path(folder) / "log.txt"
            with self._stopped_by_sigterm():
                row["status"] = self._run(part, row, facts, log)
            row["facts"] = _read(facts)
            printed = log.read_bytes() if log.exists() else b""
        row["seconds"] = round(time.monotonic() - begun, 1)
        if row["status"] != "done":
            text = printed[-_TAIL:].decode(errors="replace")
            row["error_lines"] = [line[:300] for line in text.splitlines()[-_ERROR_LINES:]]
        head = f"\n===== {part.name}: {row['status']} after {row['seconds']} s =====\n".encode()
        with (self._out / LOGS).open("ab") as logs:
            logs.write(head + truncate_output(printed))
        self.write()
        print(f"  {row['status']} after {row['seconds']} s", flush=True)
        return row["facts"]

    def _run(self, part: Part, row: dict[str, Any], facts: Path, log: Path) -> str:
        """Starts the process and looks after it; how it ended."""
        command = [str(facts) if word == "FACTS" else word for word in part.command]
        end = time.monotonic() + min(part.limit, self.left)
        environment = os.environ | {"LIDIT_PART_SECONDS": f"{end - time.monotonic():.1f}"}
        environment |= dict(part.environment)
        with log.open("wb") as output:
            self._running = process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )
        seen, begun = 0, time.monotonic()
        try:
            while process.poll() is None and time.monotonic() < end:
                time.sleep(_POLL)
                changed = facts.stat().st_mtime_ns if facts.exists() else 0
                if changed != seen:  # what it knows so far outlives it
                    seen, row["facts"] = changed, _read(facts)
                    self.write()
            late = process.poll() is None
        finally:
            kill_process_group(process)
            self._running = None
        if late:
            row["error"] = f"killed after {time.monotonic() - begun:.0f} s, its limit"
            return "killed"
        if process.returncode:
            row["error"] = _how_it_ended(process.returncode)
            return "failed"
        return "done"

    @contextlib.contextmanager
    def _stopped_by_sigterm(self) -> Any:
        """SIGTERM and Ctrl-C end the part, and leave the page as it is."""

        def stop(*_: Any) -> None:
            raise KeyboardInterrupt

        previous = signal.signal(signal.SIGTERM, stop)
        try:
            yield
        except KeyboardInterrupt:
            self.page["parts"][-1] |= {"status": "killed", "error": "stopped from outside"}
            self.write()
            raise
        finally:
            signal.signal(signal.SIGTERM, previous)


def load_previous_results(out: Path) -> Callable[[Mapping[str, Any]], dict[str, dict[str, Any]]]:
    """Reads a folder's page before it is written anew.

    Args:
      out: the folder; it may be empty.

    Returns:
      `(about) -> rows`, those of the parts that are done, by name: none where the page is of
      another device, of other versions or of other sizes.
    """
    page = _read(out / JSON_FILE)
    rows = {row["name"]: row for row in page.get("parts", ()) if row["status"] == "done"}

    def of_the_same(about: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        known = page.get("about", {})
        same = all(known.get(name) == about.get(name) for name in _SAME)
        return rows if same else {}

    return of_the_same


def kill_process_group(process: subprocess.Popen[Any]) -> None:
    """Kills a process that leads a session, and all that it has started, wherever they went."""
    family = _descendants(process.pid)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    for child in family:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(child, signal.SIGKILL)
    process.wait()


def truncate_output(text: bytes) -> bytes:
    """The beginning and the end of what was printed."""
    if len(text) <= _HEAD + _TAIL:
        return text
    left_out = f"\n[{len(text) - _HEAD - _TAIL} bytes left out]\n".encode()
    return text[:_HEAD] + left_out + text[-_TAIL:]


class Notes:
    """What a part knows so far, in the file that its runner reads."""

    def __init__(self, file: Path):
        """Starts with nothing."""
        self._file, self._facts = file, dict[str, Any]()

    def __call__(self, facts: Mapping[str, Any]) -> None:
        """Adds facts, which are safe as soon as this returns."""
        self._facts |= facts
        with atomic_file(self._file) as handle:
            handle.write(json.dumps(self._facts, default=str).encode())


def seconds_left() -> Callable[[], float]:
    """A clock of the seconds until this part is killed, of a process that `PartRunner` started."""
    end = time.monotonic() + float(os.environ["LIDIT_PART_SECONDS"])
    return lambda: end - time.monotonic()


def part_command(name: str, **settings: Any) -> list[str]:
    """The command of a part of `lidit_jax.benchmarks.part`."""
    return [sys.executable, "-m", "lidit_jax.benchmarks.part", name, json.dumps(settings), "FACTS"]


def _read(facts: Path) -> dict[str, Any]:
    try:
        return json.loads(facts.read_text())
    except (OSError, ValueError):
        return {}


def _how_it_ended(status: int) -> str:
    if status < 0:
        return f"ended by {signal.Signals(-status).name}"
    return f"exit status {status}"


def _descendants(pid: int) -> list[int]:
    """Children of a process, theirs and so on (Linux); some start sessions of their own."""
    children: dict[int, list[int]] = {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            parent = int(file.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(file.parent.name))
    found, waiting = [], [pid]
    while waiting:
        mine = children.get(waiting.pop(), [])
        found += mine
        waiting += mine
    return found
