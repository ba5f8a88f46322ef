"""Run the parts of a long measurement by priority, each in processes of its own with a time limit,
storing results as they come: a part that fails, hangs or is killed loses only its row."""

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
"""Bytes kept from the beginning and from the end of a part's output."""
_ERROR_LINES = 12
_KEPT = "measured by an earlier call"
_POLL = 0.2
"""Seconds between polls of a running part."""
_RESERVE = 3.0
"""Seconds reserved to end the last part and to write the page."""


_SAME = ("device", "driver", "versions", "tiny")
"""Keys of a page's header: if one differs, results are measured again."""


@dataclass(frozen=True)
class Part:
    """Part of the measurement, and row of the page."""

    name: str
    title: str
    command: Sequence[str]
    """Command of its process; the word FACTS is replaced by the file for its results, as JSON."""
    least: float
    """Seconds that must be left to start the part."""
    limit: float
    """Seconds after which the part is killed."""
    description: str = ""
    """Description of what was reduced, and why."""
    environment: Mapping[str, str] = field(default_factory=dict)


class PartRunner:
    """Runner of parts in sequence, which rewrites the page whenever there are new results."""

    def __init__(self, out: Path, seconds: float, about: Mapping[str, Any]):
        """Start the clock and write a page without rows.

        Args:
          out: folder of the page.
          seconds: total time budget, a hard limit.
          about: facts about the run, for the page's header.
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
        """Set the budget to `seconds` from now, replacing what was left."""
        self._deadline = time.monotonic() + seconds

    def tell(self, **about: Any) -> None:
        """Add facts about the run to the page's header."""
        self.page["about"] |= about
        self.write()

    def write(self) -> None:
        """Write the page in its current state."""
        self.page["about"]["seconds"] = round(time.monotonic() - self._begun, 1)
        write_page(self._out, self.page)

    def keep(self, row: Mapping[str, Any]) -> None:
        """Add a row measured by an earlier run to the page."""
        others = [
            one for one in (row.get("description") or "").split("; ") if one not in ("", _KEPT)
        ]
        self.page["parts"].append(dict(row) | {"description": "; ".join([*others, _KEPT])})
        self.write()

    def run(self, part: Part) -> dict[str, Any]:
        """Run a part if there is time for it.

        Returns:
          The part's facts, or {}.
        """
        row: dict[str, Any] = {
            "name": part.name,
            "title": part.title,
            "description": part.description,
        }
        self.page["parts"].append(row)
        if self.left < part.least:
            row["status"] = "skipped"
            row["error"] = f"{max(self.left, 0):.0f} s left, but it needs at least {part.least:g} s"
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
        """Run the process to its end or limit, and return how it ended."""
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
                if changed != seen:  # intermediate results, kept if it is killed
                    seen, row["facts"] = changed, _read(facts)
                    self.write()
            late = process.poll() is None
        finally:
            kill_process_group(process)
            self._running = None
        if late:
            row["error"] = f"killed at its limit of {time.monotonic() - begun:.0f} s"
            return "killed"
        if process.returncode:
            row["error"] = _how_it_ended(process.returncode)
            return "failed"
        return "done"

    @contextlib.contextmanager
    def _stopped_by_sigterm(self) -> Any:
        """Make SIGTERM and Ctrl-C end the part and leave the page as it is."""

        def stop(*_: Any) -> None:
            raise KeyboardInterrupt

        previous = signal.signal(signal.SIGTERM, stop)
        try:
            yield
        except KeyboardInterrupt:
            self.page["parts"][-1] |= {"status": "killed", "error": "stopped by a signal"}
            self.write()
            raise
        finally:
            signal.signal(signal.SIGTERM, previous)


def load_previous_results(out: Path) -> Callable[[Mapping[str, Any]], dict[str, dict[str, Any]]]:
    """Read a folder's page before it is overwritten.

    Args:
      out: the folder, which may be empty.

    Returns:
      `(about) -> rows` by name, of the parts that are done: none if the page is of another
      device, other versions or other sizes.
    """
    page = _read(out / JSON_FILE)
    rows = {row["name"]: row for row in page.get("parts", ()) if row["status"] == "done"}

    def of_the_same(about: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        known = page.get("about", {})
        same = all(known.get(name) == about.get(name) for name in _SAME)
        return rows if same else {}

    return of_the_same


def kill_process_group(process: subprocess.Popen[Any]) -> None:
    """Kill the leader of a session and all its descendants, in any session."""
    family = _descendants(process.pid)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    for child in family:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(child, signal.SIGKILL)
    process.wait()


def truncate_output(text: bytes) -> bytes:
    """Return the beginning and the end of a part's output."""
    if len(text) <= _HEAD + _TAIL:
        return text
    left_out = f"\n[{len(text) - _HEAD - _TAIL} bytes left out]\n".encode()
    return text[:_HEAD] + left_out + text[-_TAIL:]


class Notes:
    """Results of a part so far, stored in the file that its runner reads."""

    def __init__(self, file: Path):
        """Start without results."""
        self._file, self._facts = file, dict[str, Any]()

    def __call__(self, facts: Mapping[str, Any]) -> None:
        """Add facts, which are on disk when this returns."""
        self._facts |= facts
        with atomic_file(self._file) as handle:
            handle.write(json.dumps(self._facts, default=str).encode())


def seconds_left() -> Callable[[], float]:
    """Return a function of the seconds until `PartRunner` kills this process."""
    end = time.monotonic() + float(os.environ["LIDIT_PART_SECONDS"])
    return lambda: end - time.monotonic()


def part_command(name: str, **settings: Any) -> list[str]:
    """Return the command that runs a part of `lidit_jax.benchmarks.part`."""
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
    """Return the descendants of a process (Linux), including those in other sessions."""
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
