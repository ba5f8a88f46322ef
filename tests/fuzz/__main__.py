"""Runs `lidit` on random command lines and files: no traceback, and nothing half written.

    python -m tests.fuzz --cases 2000 --seed 0

Cases run in this process, with what takes seconds replaced; --processes of those that were refused
run once more as processes of their own. Prints one case of each kind of fault. Exit status 0 when
there was none.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["HF_HUB_OFFLINE"] = "1"

from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.fuzz.cases import Case, cases
from tests.fuzz.judge import Outcome, run_here, run_process
from tests.fuzz.stand_ins import quick_parts, save_model


def for_each_case(count: int, number: int, body: Callable[[Case], None]) -> None:
    """Calls `body` with `count` random cases, the same for the same seed."""
    quiet = settings(
        max_examples=count,
        phases=[Phase.generate],
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    seed(number)(quiet(given(cases())(body)))()


class _OutOfTimeError(Exception):
    """The time is up."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints a fault of each kind as soon as it is found, and the counts."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cases", type=int, default=2000, help="(default: 2000)")
    parser.add_argument("--processes", type=int, default=0, help="cases run as processes too")
    parser.add_argument("--seed", type=int, default=0, help="of the cases (default: 0)")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after this long")
    options = parser.parse_args(arguments)
    begun, count, faults = time.monotonic(), 0, {}
    statuses: dict[int, int] = {}
    refused: list[Case] = []

    def report(case: Case, outcome: Outcome) -> None:
        if outcome.fault and outcome.fault not in faults:
            print(f"\n{outcome.fault}\n  {case!r}\n{outcome.details[-1500:]}", flush=True)
        if outcome.fault:
            faults[outcome.fault] = faults.get(outcome.fault, 0) + 1

    with tempfile.TemporaryDirectory() as name:
        os.environ["LIDIT_CACHE"] = str(Path(name) / "cache")
        model = save_model(Path(name))

        def body(case: Case) -> None:
            nonlocal count
            if time.monotonic() - begun > 60 * options.minutes:
                raise _OutOfTimeError
            started = time.monotonic()
            outcome = run_here(case, model)
            if (seconds := time.monotonic() - started) > 20:
                print(f"{seconds:.0f} s: {case.arguments}", flush=True)
            count += 1
            statuses[outcome.status] = statuses.get(outcome.status, 0) + 1
            if outcome.status == 2 and len(refused) < options.processes:
                refused.append(case)
            report(case, outcome)

        with quick_parts(model):
            try:
                for_each_case(options.cases, options.seed, body)
            except _OutOfTimeError:
                print("the time is up")
        for case in refused:
            report(case, run_process(case, model))
    minutes = (time.monotonic() - begun) / 60
    found = {kind: f"{times} times" for kind, times in faults.items()}
    print(
        f"\n{count} cases, {len(refused)} processes, {minutes:.1f} minutes; {statuses=}; {found=}"
    )
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
