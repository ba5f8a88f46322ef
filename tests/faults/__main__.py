"""Puts faults into training runs and prints what survived, as a table.

    python -m tests.faults --kills 50 --seed 0

Takes a few minutes on two cores: the model is tiny, the faults are real. Exit status 0 when nothing
was lost.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from tests.faults import others
from tests.faults.kill_and_resume import stop_and_resume
from tests.faults.runs import Run


def stopped(
    folder: Path, undisturbed: Run, number: signal.Signals, times: int, rng: random.Random
) -> others.Row:
    """Signals at random moments."""
    run = Run(folder, number.name.lower(), undisturbed.steps)
    outcome = stop_and_resume(undisturbed, run, [number] * times, rng)
    assert outcome.survived, outcome
    return (
        f"{times} {number.name} at random moments",
        f"{outcome.restores} restores, {outcome.refused} corrupt; {outcome.lost} steps lost beyond "
        f"the last checkpoint ({outcome.redone} done again); end equal to the bit",
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints a row as soon as its fault is over."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=50, help="at random (default: 50)")
    parser.add_argument("--steps", type=int, default=30, help="of each run (default: 30)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")
    options = parser.parse_args(arguments)
    rng, begun, lost = random.Random(options.seed), time.monotonic(), 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        undisturbed = Run(folder, "undisturbed", options.steps)
        undisturbed.finish()
        a_tenth = max(options.kills // 10, 1)
        faults: list[Callable[[Path, Run], others.Row]] = [
            partial(stopped, number=signal.SIGKILL, times=options.kills, rng=rng),
            partial(stopped, number=signal.SIGTERM, times=a_tenth, rng=rng),
            partial(others.killed_while_saving, times=a_tenth, rng=rng),
            others.full_disk,
            others.full_disk_at_the_end,
            partial(others.damaged, kind="truncated checkpoint", damage=others.truncate),
            partial(others.damaged, kind="arrays of another step", damage=others.swap),
            others.batches_of_nan,
            others.corrupt_image,
        ]
        print("| failure injected | what survived |\n|---|---|", flush=True)
        for fault in faults:
            try:
                print("| " + " | ".join(fault(folder, undisturbed)) + " |", flush=True)
            except (AssertionError, RuntimeError) as error:
                lost += 1
                what = getattr(fault, "func", fault).__name__.replace("_", " ")
                print(f"| {what} | **lost**: {' '.join(str(error).split())[:500]} |", flush=True)
    seconds = time.monotonic() - begun
    print(f"\n{options.steps} steps a run, seed {options.seed}, {seconds / 60:.1f} minutes")
    return int(bool(lost))


if __name__ == "__main__":
    sys.exit(main())
