"""The whole train step beside PyTorch: forward, backward, clipping, AdamW and averaged weights.

    python -m tests.benchmarks.train_step [--batch 32] [--repeats 7] [--json FILE]

Every contender lives in its own process and they take turns, a few steps each, so that a machine
that changes its speed changes it for all; a waiting contender sleeps. All train the same network
(PyTorch's is `lidit_jax/weights/torch_model.py`) on the same made-up batches with the same number
of threads. The float32 rows are the comparison; bfloat16 rows are extra, other arithmetic for both.
`of ours` is the median over the rounds of a contender's time divided by the first contender's.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from .contenders import CONTENDERS

# smollm2 and minilm on the demo's captions: width, padded tokens, instruction tokens.
DEMO_STREAMS = "576x56x26,384x56x26"


class Contender:
    """One process of `contenders.py`."""

    def __init__(self, name: str, arguments: argparse.Namespace, overrides: list[str]):
        self.name = name
        self.rounds: list[list[float]] = []
        self.built: dict[str, Any] = {}
        self.error = ""
        threads = str(arguments.threads)
        command = [sys.executable, "-m", "tests.benchmarks.contenders", name]
        for option in ("config", "batch", "streams", "threads"):
            command += [f"--{option}", str(getattr(arguments, option))]
        for override in overrides:
            command += ["--override", override]
        self._messages = tempfile.TemporaryFile("w+")  # noqa: SIM115 (as long as the process)
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._messages,
            text=True,
            env=os.environ
            | {"JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
            | dict(setting.split("=", 1) for setting in arguments.env),
        )

    def build(self) -> None:
        """Waits for the first step; keeps the error when there is none."""
        self.built = self._answer() or {}

    def round(self, steps: int, *, keep: bool) -> None:
        """A few steps, timed."""
        if self.error:
            return
        self._process.stdin.write(f"{steps}\n")
        self._process.stdin.flush()
        seconds = self._answer()
        if keep and seconds:
            self.rounds.append(seconds)

    def finish(self) -> None:
        """Ends the process and asks for its peak memory."""
        if self.error:
            return
        self._process.stdin.close()
        self.built |= self._answer() or {}
        self._process.wait()

    def _answer(self) -> Any:
        line = self._process.stdout.readline()
        if line:
            return json.loads(line)
        self._process.wait()
        self._messages.seek(0)
        errors = self._messages.read().strip().splitlines()
        self.error = next((line for line in reversed(errors) if "Error" in line), "ended early")
        return None


def summary(contender: Contender, reference: Contender, batch: int) -> dict[str, Any]:
    """One row of the table."""
    if contender.error:
        return {"name": contender.name, "error": contender.error}
    medians = [statistics.median(seconds) for seconds in contender.rounds]
    reference_medians = [statistics.median(seconds) for seconds in reference.rounds]
    median = statistics.median(medians)
    ratios = [a / b for a, b in zip(medians, reference_medians, strict=False)]
    return {
        "name": contender.name,
        "median_seconds": median,
        "fastest_round_seconds": min(medians),
        "slowest_round_seconds": max(medians),
        "samples_per_second": batch / median,
        "of_ours": statistics.median(ratios) if ratios else None,
        **contender.built,
        "rounds": contender.rounds,
    }


def print_table(rows: list[dict[str, Any]]) -> None:
    """A Markdown table."""
    print("| train step | s (median) | min to max | samples/s | of ours | peak MiB | 1st step s |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        if "error" in row:
            print(f"| {row['name']} | failed: {row['error'][:80]} | | | | | |")
            continue
        ratio = "" if row["of_ours"] is None else f"{row['of_ours']:.2f}"
        print(
            f"| {row['name']} | {row['median_seconds']:.3f} "
            f"| {row['fastest_round_seconds']:.3f} to {row['slowest_round_seconds']:.3f} "
            f"| {row['samples_per_second']:.1f} | {ratio} "
            f"| {row['peak_bytes'] / 2**20:.0f} | {row['first_step_seconds']:.1f} |"
        )


def main() -> None:
    """Builds the contenders one after the other, lets them take turns, prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="configs/demo.py")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=7, help="rounds")
    parser.add_argument("--steps", type=int, default=3, help="steps of each contender a round")
    parser.add_argument("--warmup", type=int, default=3, help="steps before the first round")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--streams", default=DEMO_STREAMS, help="WIDTHxTOKENSxCROP,… of encoders")
    parser.add_argument("--contenders", default="", help="words that names must contain, a|b")
    parser.add_argument("--env", action="append", default=[], help="NAME=VALUE for all contenders")
    parser.add_argument("--json", type=Path)
    arguments, rest = parser.parse_known_args()
    if unknown := [text for text in rest if not text.startswith("--config.")]:
        parser.error(f"unknown arguments: {' '.join(unknown)}")
    overrides = [text.removeprefix("--config.") for text in rest]

    wanted = arguments.contenders.split("|")
    contenders = []
    for name in CONTENDERS:
        if any(word in name for word in wanted):
            contender = Contender(name, arguments, overrides)
            contender.build()
            print(f"{name}: {contender.error or 'ready'}", file=sys.stderr)
            contenders.append(contender)
    sizes = {c.built["parameters"] for c in contenders if not c.error}
    if len(sizes) > 1:
        sys.exit(f"the contenders differ in their number of parameters: {sizes}")

    for contender in contenders:
        contender.round(arguments.warmup, keep=False)
    for _ in range(arguments.repeats):
        for contender in contenders:
            time.sleep(0.3)  # the last one's idle threads stop spinning
            contender.round(arguments.steps, keep=True)
    for contender in contenders:
        contender.finish()

    rows = [summary(c, contenders[0], arguments.batch) for c in contenders]
    print_table(rows)
    if arguments.json:
        about = {
            "config": arguments.config,
            "overrides": overrides,
            "batch": arguments.batch,
            "threads": arguments.threads,
            "streams": arguments.streams,
            "env": arguments.env,
            "cpu": platform.processor() or platform.machine(),
            "versions": {name: version(name) for name in ("jax", "jaxlib", "flax", "torch")},
        }
        arguments.json.write_text(json.dumps(about | {"rows": rows}, indent=1))


if __name__ == "__main__":
    main()
