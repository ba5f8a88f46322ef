"""Work shared by independently started processes on several hosts, coordinated by files.

Each file is written by one process and appears atomically. To write one, a process first creates a
claim beside the launch's heartbeat. Claims of launches that have ended, or without heartbeats for a
while, are ignored. If two processes write the same file at once, both write the same content.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from lidit_jax.data.file_errors import FileErrors
from lidit_jax.data.reader_processes import follow_parent
from lidit_jax.errors import LiditError
from lidit_jax.io.paths import in_bucket, to_path
from lidit_jax.io.progress import Progress

Write = Callable[[Any, Path], None]
"""Function that writes the file of a task; receives the task and the path. It can be pickled."""

PATIENCE = 10.0
"""Seconds without a heartbeat after which a launch counts as dead."""
_BEATS = 6
"""Heartbeats in that time."""
_LOOK = 2.0
"""Seconds between checks for files of other launches, and between reports."""


def share_work(
    folder: Path,
    tasks: Mapping[str, Any],
    write: Write,
    claims: Path,
    *,
    processes: int = 1,
    progress: Progress | None = None,
    patience: float = PATIENCE,
) -> None:
    """Return when every file exists, written by this or another launch.

    Args:
      folder: folder of the files, which may be in a bucket; it exists.
      tasks: name of each required file, and the argument of `write` for it.
      write: writes one file, atomically (`lidit_jax.io.output.atomic_file`).
      claims: folder for claims, the same for all launches; created here, and empty at the end.
      processes: number of processes on this host; 1 works in this process.
      progress: receives the count of files written and the total.
      patience: seconds without a heartbeat after which another launch counts as dead.

    Raises:
      LiditError: when files cannot be written, with the reasons of the first ten; all others are
        written first. Or when a process was killed.
    """
    tell = progress or Progress()
    present = _names(folder) & tasks.keys()
    tell(len(present), len(tasks))
    if len(present) == len(tasks):
        return
    here = processes == 1
    processes = min(processes, len(tasks) - len(present))
    errors = FileErrors(folder)
    failed: set[str] = set()
    running: dict[Future[None], str] = {}
    looked, waited = time.monotonic(), False
    with _Claims(claims, patience) as claimed, _workers(0 if here else processes, write) as submit:
        while len(present) + len(failed) < len(tasks):
            busy = {*running.values()}
            for name in tasks:
                if len(running) > processes:
                    break
                if name in present or name in failed or name in busy or not claimed.take(name):
                    continue
                if (folder / name).exists():  # written since the last check
                    present.add(name)
                    claimed.drop(name)
                    continue
                running[submit(tasks[name], os.fspath(folder / name))] = name
            ended, _ = wait(running, timeout=_LOOK, return_when=FIRST_COMPLETED)
            if not running and len(present) + len(failed) < len(tasks):
                if not waited:
                    tell.note("waiting for another launch, which is at the rest")
                waited = True
                time.sleep(min(_LOOK, patience / _BEATS))
            for future in ended:
                name = running.pop(future)
                try:
                    with errors.collect():
                        future.result()
                        present.add(name)
                except BrokenProcessPool as error:
                    raise LiditError(
                        "a process was killed, perhaps for want of memory: start again with fewer "
                        "--processes; what is done stays done"
                    ) from error
                if name not in present:
                    failed.add(name)
                claimed.drop(name)
            if time.monotonic() - looked > _LOOK:
                present |= _names(folder) & tasks.keys()
                failed -= present
                looked = time.monotonic()
                tell(len(present), len(tasks))
    tell(len(present), len(tasks))
    errors.raise_all()


def _names(folder: Path) -> set[str]:
    try:
        return {path.name for path in folder.iterdir()}
    except FileNotFoundError:  # a bucket has no empty folders
        return set()


class _Claims:
    """Claims of this launch, and state of other launches."""

    def __init__(self, folder: Path, patience: float):
        self._folder, self._patience = folder, patience
        self._launch = uuid.uuid4().hex
        self._sign = folder / f"{self._launch}.launch"
        self._mine: set[str] = set()
        self._seen: dict[str, tuple[bytes, float]] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._live, daemon=True)

    def __enter__(self) -> _Claims:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._sign.write_bytes(b"0")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        for name in [*self._mine]:
            self.drop(name)
        self._sign.unlink(missing_ok=True)

    def take(self, name: str) -> bool:
        """Claim the work on a file; return whether this launch has it."""
        claim = self._folder / f"{name}.claim"
        mine = self._launch.encode()
        if not _create(claim, mine):
            owner = _content(claim)
            # One that is still empty is being written: its launch has the usual patience.
            sign = self._folder / f"{owner.decode()}.launch" if owner else claim
            if owner is None or self._is_alive(sign):
                return False
            claim.write_bytes(mine)
        self._mine.add(name)
        return True

    def drop(self, name: str) -> None:
        """Delete a claim of this launch."""
        self._mine.discard(name)
        (self._folder / f"{name}.claim").unlink(missing_ok=True)

    def _is_alive(self, file: Path) -> bool:
        sign = _content(file)
        if sign is None:
            return False
        before, when = self._seen.get(file.name, (None, 0.0))
        now = time.monotonic()
        if sign != before:
            self._seen[file.name] = (sign, now)
            return True
        return now - when < self._patience

    def _live(self) -> None:
        """Write a heartbeat: a counter, as clocks of hosts may differ."""
        beat = 0
        while not self._ended.wait(self._patience / _BEATS):
            beat += 1
            self._sign.write_bytes(str(beat).encode())


def _create(claim: Path, content: bytes) -> bool:
    """Create a file that does not exist yet."""
    if in_bucket(claim):
        if claim.exists():
            return False
        claim.write_bytes(content)
        return _content(claim) == content
    try:
        with claim.open("xb") as file:
            file.write(content)
    except FileExistsError:
        return False
    return True


def _content(file: Path) -> bytes | None:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        return None


_Submit = Callable[[Any, str], Future[None]]
"""Function that starts the writing of a task's file; receives the task and the path."""


@contextmanager
def _workers(processes: int, write: Write) -> Iterator[_Submit]:
    """Yield what runs `write`: worker processes, or this one (0), which has written on return.

    If the body fails, worker processes are ended at once.
    """
    if not processes:
        yield partial(_run_here, write)
        return
    before = {*multiprocessing.active_children()}
    # Processes that are forked from a program with threads may hang.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, context, _begin_worker, (write,))
    try:
        yield partial(pool.submit, _work)
    except BaseException:
        for child in {*multiprocessing.active_children()} - before:
            child.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _run_here(write: Write, task: Any, file: str) -> Future[None]:
    future: Future[None] = Future()
    try:
        future.set_result(_write_file(write, task, file))
    except Exception as error:
        future.set_exception(error)
    return future


_worker_write: Write
"""What a worker process runs: sent to it once. Other processes, whose threads may share different
work at the same time, have no such state."""


def _begin_worker(write: Write) -> None:
    global _worker_write
    follow_parent()
    _worker_write = write


def _work(task: Any, file: str) -> None:
    _write_file(_worker_write, task, file)


def _write_file(write: Write, task: Any, file: str) -> None:
    try:
        write(task, to_path(file))
    except OSError as error:
        raise LiditError(f"cannot write {file} ({error.strerror or error})") from error
