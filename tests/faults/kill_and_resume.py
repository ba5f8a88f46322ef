"""Stops a training run at random moments and shows that nothing is lost.

    python -m tests.faults.kill_and_resume --kills 50 --terms 5 --devices 1 --seed 0

Trains the tiny recipe twice: once undisturbed, once killed (`kill -9`) or terminated (SIGTERM) at
random moments and started again each time with the same command. Each start must go on from the
newest checkpoint that was complete when the one before was stopped, and every array of the two last
checkpoints (parameters, averages, optimizer, key, step, position) must be equal to the bit. Exit
status 0 when all of that holds.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.runs import Run, Start, resumed_at, unequal

_EARLY = 0.1
"""Share of the stops that come before the first step: at the start, or while restoring."""


@dataclass
class Outcome:
    """What became of a run that was stopped again and again."""

    stops: dict[str, int] = field(default_factory=dict)
    """How many of each signal."""
    restores: int = 0
    """Starts that went on from a checkpoint."""
    refused: int = 0
    """Starts that could not restore one."""
    lost: int = 0
    """Steps lost beyond the last checkpoint, over all starts."""
    redone: int = 0
    """Steps done again because no checkpoint had come after them."""
    different: list[str] = field(default_factory=list)
    """Arrays that are not those of the undisturbed run."""

    @property
    def survived(self) -> bool:
        """Whether nothing was lost."""
        return not (self.refused or self.lost or self.different)


def stop_and_resume(
    undisturbed: Run, disturbed: Run, stops: Sequence[signal.Signals], rng: random.Random
) -> Outcome:
    """Trains in `disturbed`, stopped each time at a random moment, and compares the ends.

    Args:
      undisturbed: has been trained to its end.
      disturbed: the same settings in another workdir.
      stops: the signals, in turn.
      rng: chooses the moments.
    """
    outcome = Outcome()
    last = max(disturbed.steps - 4, 1)
    moments = sorted(rng.randint(1, last) for _ in stops)
    until_first_step, reached = 1.0, 0
    for number, moment in zip([*stops, None], [*moments, None], strict=True):
        newest = max(disturbed.steps_on_disk(), default=0)
        begun = time.monotonic()
        with disturbed.start() as start:
            if number is None:
                start.end()
            elif rng.random() < _EARLY:
                time.sleep(rng.uniform(0, until_first_step))
            elif start.wait_until(lambda start=start, moment=moment: start.step() >= moment):
                time.sleep(rng.uniform(0, 0.05))
            shown = start.output
            if start.step() and number:
                until_first_step = min(until_first_step, time.monotonic() - begun)
            if number:
                _stop(start, number)
                outcome.stops[number.name] = outcome.stops.get(number.name, 0) + 1
        came = resumed_at(shown)
        if "cannot restore" in shown:
            outcome.refused += 1
        if came >= 0:
            outcome.restores += came > 0
            outcome.lost += max(newest - came, 0)
            outcome.redone += max(reached - came, 0)
            reached = max(start.step(), came)
    outcome.different = unequal(undisturbed.arrays(), disturbed.arrays())
    return outcome


def _stop(start: Start, number: signal.Signals) -> None:
    start.send(number)
    status = start.end()
    if number == signal.SIGTERM and status == 0 and start.step():
        if "run the same command to go on" not in start.output:
            raise RuntimeError(f"SIGTERM was not acknowledged:\n{start.output}")
    elif status not in (-number, 0):
        raise RuntimeError(f"exit status {status} after {number.name}:\n{start.output}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs both trainings and compares them."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=3, help="times to kill -9 (default: 3)")
    parser.add_argument("--terms", type=int, default=1, help="times to terminate (default: 1)")
    parser.add_argument("--devices", type=int, default=1, help="CPU devices (default: 1)")
    parser.add_argument("--steps", type=int, default=30, help="of training (default: 30)")
    parser.add_argument("--seed", type=int, help="of the moments (default: another each time)")
    options = parser.parse_args(arguments)
    seed = random.randrange(2**32) if options.seed is None else options.seed
    rng = random.Random(seed)
    stops = [signal.SIGKILL] * options.kills + [signal.SIGTERM] * options.terms
    rng.shuffle(stops)
    with tempfile.TemporaryDirectory() as name:
        undisturbed, disturbed = (
            Run(Path(name), workdir, options.steps, options.devices)
            for workdir in ("undisturbed", "disturbed")
        )
        undisturbed.finish()
        outcome = stop_and_resume(undisturbed, disturbed, stops, rng)
        compared = len(undisturbed.arrays())
    stopped = ", ".join(f"{count} {name}" for name, count in sorted(outcome.stops.items()))
    print(f"{stopped} in {options.steps} steps on {options.devices} devices, seed {seed}")
    print(f"{outcome.restores} restores, {outcome.refused} refused")
    print(f"{outcome.redone} steps done again, {outcome.lost} lost beyond the last checkpoint")
    print(f"{compared} arrays, {len(outcome.different)} differ")
    for array in outcome.different:
        print(f"  {array}")
    return int(not outcome.survived)


if __name__ == "__main__":
    sys.exit(main())
