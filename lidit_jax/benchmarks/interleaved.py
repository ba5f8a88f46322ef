"""Candidates in processes of their own that take turns, so that a machine that changes its speed
changes it for all; a waiting candidate sleeps.

A candidate's process answers on its standard output, one JSON object a line: first what it built,
then the seconds of each piece of work it was asked for (`N` on its standard input), and, at the end
of its input, what there is to say last.
"""

import contextlib
import json
import os
import select
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

_POLL = 0.05
"""Seconds between looks at candidates that are being built."""
_ERROR_LINES = 12
"""Of what a failed process printed, kept for its row."""


class Candidate:
    """One process."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        threads: int,
        env: Mapping[str, str],
        patience: float | None = None,
    ):
        """Starts it.

        Args:
          name: in the table.
          command: that serves the candidate.
          threads: of its libraries.
          env: more variables.
          patience: seconds from its start in which it must be built, or it is ended; None to wait
            for as long as it takes.
        """
        self.name = name
        self._patience, self._begun = patience, time.monotonic()
        self.rounds: list[list[float]] = []
        self.built: dict[str, Any] = {}
        self.error, self.error_lines = "", list[str]()
        own = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        self._messages = tempfile.TemporaryFile("w+")  # noqa: SIM115 (as long as the process)
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._messages,
            text=True,
            env=os.environ | own | dict(env),
        )
        assert self._process.stdin is not None  # both are pipes
        assert self._process.stdout is not None
        self._requests, self._answers = self._process.stdin, self._process.stdout

    def build(self) -> None:
        """Waits for the first piece of work; keeps the error when it fails."""
        if self._is_late():
            self._process.kill()
            self._fail(f"not built within {self._patience:.0f} s")
            return
        self.built = self._answer() or {}

    @property
    def is_ready(self) -> bool:
        """Whether `build` returns at once: there is an answer, or the process has ended."""
        return bool(select.select([self._answers], [], [], 0)[0])

    @property
    def is_late(self) -> bool:
        """Whether its patience is over."""
        return self._patience is not None and time.monotonic() > self._begun + self._patience

    def round(self, count: int, *, keep: bool) -> None:
        """A few pieces of work, timed."""
        if self.error:
            return
        with contextlib.suppress(BrokenPipeError):  # the missing answer tells more
            self._requests.write(f"{count}\n")
            self._requests.flush()
        seconds = self._answer()
        if keep and seconds:
            self.rounds.append(seconds)

    def work_alone(self, count: int, warmup: int) -> None:
        """One round before the turns, so that there is a figure whatever becomes of the others."""
        self.round(warmup, keep=False)
        self.round(count, keep=True)

    def finish(self) -> None:
        """Ends the process and takes its last answer."""
        if self.error:
            return
        with contextlib.suppress(BrokenPipeError):
            self._requests.close()
        self.built |= self._answer() or {}
        self._process.wait()

    def summary(self, reference: "Candidate") -> dict[str, Any]:
        """One row of a table; `relative_time` is the median over rounds of its time by theirs."""
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

    def _answer(self) -> Any:
        line = self._answers.readline()
        if line:
            return json.loads(line)
        self._fail()
        return None

    def _fail(self, reason: str = "") -> None:
        """Keeps the reason, by default the last error that the process printed."""
        self._process.wait()
        self._messages.seek(0)
        errors = self._messages.read().strip().splitlines()
        found = next((line for line in reversed(errors) if "Error" in line), "ended early")
        self.error, self.error_lines = reason or found, errors[-_ERROR_LINES:]

    def _is_late(self) -> bool:
        """Waits for the first answer; whether none has come in time."""
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
    """Waits for candidates that were started at the same time, in the order in which they are done.

    Whoever is built while others are not works alone at once: so there is a figure of it, whatever
    becomes of the others. `run_interleaved` measures it anew.

    Args:
      candidates: that are not built.
      count: pieces of work a turn.
      warmup: pieces of work before the first turn.
      after_round: is given those that have a figure.
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
    """Lets everyone work `warmup` times, then `rounds` times `count` times, then ends them.

    Args:
      candidates: that are built.
      rounds: turns that are timed.
      count: pieces of work a turn.
      warmup: pieces of work before the first turn.
      after_round: is called after every turn, to keep what is known so far.
    """
    for candidate in candidates:
        candidate.round(warmup, keep=False)
        if not candidate.error:
            candidate.rounds.clear()  # those that it has worked alone
    for _ in range(rounds):
        for candidate in candidates:
            time.sleep(0.3)  # the last one's idle threads stop spinning
            candidate.round(count, keep=True)
        after_round()
    for candidate in candidates:
        candidate.finish()
