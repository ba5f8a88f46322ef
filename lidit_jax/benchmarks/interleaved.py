"""Time candidates in separate processes that take turns, so that changes in the machine's speed
affect all alike; those that wait are stopped, with their worker processes.

A candidate's process prints one JSON object per line: first a description of its workload, then the
seconds of each requested iteration (`N` on its standard input) and, at the end of its input, its
final facts.
"""

import contextlib
import json
import os
import select
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

_POLL = 0.05
"""Seconds between polls of candidates that are being built."""
_ERROR_LINES = 12
"""Lines of a failed process's output that are kept for its row."""


class Candidate:
    """Candidate of a benchmark, in a process of its own."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        threads: int,
        env: Mapping[str, str],
        patience: float | None = None,
    ):
        """Start the process.

        Args:
          name: name in the table.
          command: command that serves the candidate.
          threads: number of threads of its libraries.
          env: additional environment variables.
          patience: seconds from its start within which it must be built, or it is killed; None for
            no limit.
        """
        self.name = name
        self._patience, self._begun = patience, time.monotonic()
        self.rounds: list[list[float]] = []
        self.built: dict[str, Any] = {}
        self.error, self.error_lines = "", list[str]()
        own = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        self._messages = tempfile.TemporaryFile("w+")  # noqa: SIM115 (open as long as the process)
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._messages,
            text=True,
            env=os.environ | own | dict(env),
            # To be stopped and continued as a whole. If this process is killed, the kernel
            # continues and ends the stopped ones, since their group then has no parent.
            process_group=0,
        )
        assert self._process.stdin is not None  # both are pipes
        assert self._process.stdout is not None
        self._requests, self._answers = self._process.stdin, self._process.stdout

    def build(self) -> None:
        """Wait until the workload is built; store the error if it fails."""
        if self._is_late():
            self._process.kill()
            self._fail(f"not built within {self._patience:.0f} s")
            return
        self.built = self._answer() or {}
        self._signal(signal.SIGSTOP)

    @property
    def is_ready(self) -> bool:
        """Whether `build` would return at once: there is an answer, or the process has ended."""
        return bool(select.select([self._answers], [], [], 0)[0])

    @property
    def is_late(self) -> bool:
        """Whether the time limit for building has passed."""
        return self._patience is not None and time.monotonic() > self._begun + self._patience

    def round(self, count: int, *, keep: bool) -> None:
        """Time `count` iterations."""
        if self.error:
            return
        self._signal(signal.SIGCONT)
        with contextlib.suppress(BrokenPipeError):  # the missing answer is reported instead
            self._requests.write(f"{count}\n")
            self._requests.flush()
        seconds = self._answer()
        self._signal(signal.SIGSTOP)
        if keep and seconds:
            self.rounds.append(seconds)

    def work_alone(self, count: int, warmup: int) -> None:
        """Time one round before the turns, so that there is a result even if others fail."""
        self.round(warmup, keep=False)
        self.round(count, keep=True)

    def finish(self) -> None:
        """End the process and read its final answer."""
        if self.error:
            return
        self._signal(signal.SIGCONT)
        with contextlib.suppress(BrokenPipeError):
            self._requests.close()
        self.built |= self._answer() or {}
        self._process.wait()

    def summary(self, reference: "Candidate") -> dict[str, Any]:
        """Return a table row; `relative_time` is the median over rounds of time / reference's."""
        if not self.rounds:
            error = self.error or "no round was timed"
            return {"name": self.name, "error": error, "error_lines": self.error_lines}
        medians = [statistics.median(seconds) for seconds in self.rounds]
        reference_medians = [statistics.median(seconds) for seconds in reference.rounds]
        ratios = [a / b for a, b in zip(medians, reference_medians, strict=False)]
        return {
            "name": self.name,
            "median_seconds": statistics.median(medians),
            "fastest_round_seconds": min(medians),
            "slowest_round_seconds": max(medians),
            "relative_time": statistics.median(ratios) if ratios else None,
            **self.built,
            "rounds": self.rounds,
            **({"ended_early": self.error} if self.error else {}),
        }

    def _signal(self, number: signal.Signals) -> None:
        """Stop or continue the process and its children, if it has not ended."""
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # it ends at this moment
                os.killpg(self._process.pid, number)

    def _answer(self) -> Any:
        line = self._answers.readline()
        if line:
            return json.loads(line)
        self._fail()
        return None

    def _fail(self, reason: str = "") -> None:
        """Store the reason, by default the last error that the process printed."""
        self._process.wait()
        self._messages.seek(0)
        errors = self._messages.read().strip().splitlines()
        found = next((line for line in reversed(errors) if "Error" in line), "ended early")
        self.error, self.error_lines = reason or found, errors[-_ERROR_LINES:]

    def _is_late(self) -> bool:
        """Wait for the first answer, and return whether the time limit has passed without one."""
        if self._patience is None:
            return False
        left = self._begun + self._patience - time.monotonic()
        return not select.select([self._answers], [], [], max(left, 0.0))[0]


def build_concurrently(
    candidates: Sequence[Candidate],
    count: int,
    warmup: int,
    after_round: Callable[[list[Candidate]], None],
) -> None:
    """Wait for candidates that are being built at the same time, in order of completion.

    A candidate that is built before others is timed alone at once, so that there is a result for it
    even if others fail. `run_interleaved` measures it again.

    Args:
      candidates: candidates that are not built yet.
      count: iterations per turn.
      warmup: iterations before the first turn.
      after_round: called with the candidates that have a result.
    """
    waiting = list(candidates)
    while waiting:
        for one in [one for one in waiting if one.is_ready or one.is_late]:
            one.build()
            waiting.remove(one)
            if waiting:
                one.work_alone(count, warmup)
            if any(one.rounds for one in candidates):
                after_round([one for one in candidates if one.rounds])
        if waiting:
            time.sleep(_POLL)


def run_interleaved(
    candidates: Sequence[Candidate],
    rounds: int,
    count: int,
    warmup: int,
    after_round: Callable[[], None] = lambda: None,
) -> None:
    """Run `warmup` iterations of each candidate, then `rounds` turns of `count`, then end them.

    Args:
      candidates: candidates that are built.
      rounds: number of timed turns.
      count: iterations per turn.
      warmup: iterations before the first turn.
      after_round: called after every turn, to store intermediate results.
    """
    for candidate in candidates:
        candidate.round(warmup, keep=False)
        if not candidate.error:
            candidate.rounds.clear()  # those timed alone
    for _ in range(rounds):
        for candidate in candidates:
            time.sleep(0.3)  # the last one's idle threads stop spinning
            candidate.round(count, keep=True)
        after_round()
    for candidate in candidates:
        candidate.finish()
