"""Stops a training run at random moments and shows that nothing is lost.

    python -m tests.faults.kill_and_resume --kills 3 --terms 1 --devices 1 --seed 0

Trains the tiny recipe twice: once undisturbed, once killed (`kill -9`) or terminated (SIGTERM) at
random moments and started again each time with the same command. Every array of the two last
checkpoints (parameters, averages, optimizer, key, step, position) must be equal to the bit. Exit
status 0 when they are.
"""

import argparse
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp

from tests.tiny_encoders import save_encoder

RECIPE = Path(__file__).parents[1] / "tiny_recipe.py"


class Run:
    """`lidit train` in a process of its own, on a number of CPU devices."""

    def __init__(self, folder: Path, workdir: str, steps: int, devices: int):
        encoder = save_encoder(folder / "llama", "llama")
        self.workdir, self.steps = folder / workdir, steps
        settings = {
            "encoders.sources": (str(encoder),),
            "data.cache_dir": folder / "data",
            "training.steps": steps,
        }
        self._command = [sys.executable, "-m", "lidit_jax.cli", "train", f"--config={RECIPE}"]
        self._command += [f"--workdir={self.workdir}"]
        self._command += [f"--config.{name}={value}" for name, value in settings.items()]
        self._environment = os.environ | {
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
            "JAX_COMPILATION_CACHE_DIR": str(folder / "xla"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }

    def start(self, stop: signal.Signals | None = None, at_step: int = 0, pause: float = 0) -> str:
        """Runs to the end, or stops it `pause` seconds after a step; returns what it printed."""
        process = subprocess.Popen(
            self._command,
            env=self._environment,
            cwd=RECIPE.parents[1],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        lines, stopped = [], False
        for line in process.stdout:
            lines.append(line)
            # A stop may have come some steps late: the next one's step can lie behind already.
            shown = re.match(r"step (\d+)/", line)
            if stop and not stopped and shown and int(shown[1]) >= at_step:
                time.sleep(pause)
                process.send_signal(stop)
                stopped = True
        output, status = "".join(lines), process.wait()
        expected = -signal.SIGKILL if stop == signal.SIGKILL else 0
        if status != expected:
            raise SystemExit(f"exit status {status}, not {expected}:\n{output}")
        if stop == signal.SIGTERM and "run the same command to go on" not in output:
            raise SystemExit(f"SIGTERM was not acknowledged:\n{output}")
        return output


def saved_arrays(workdir: Path, step: int) -> dict[str, np.ndarray]:
    """All arrays of a checkpoint, by name."""
    folder = workdir / "checkpoints" / str(step) / "state"
    with ocp.PyTreeCheckpointer() as checkpointer:
        tree = checkpointer.metadata(folder).item_metadata.tree
        whole = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
        state = checkpointer.restore(folder, args=ocp.args.PyTreeRestore(restore_args=whole))
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def unequal(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> list[str]:
    """Names of the arrays that are not equal to the bit."""
    return [
        name
        for name in sorted(first.keys() | second.keys())
        if name not in first
        or name not in second
        or first[name].dtype != second[name].dtype
        or first[name].tobytes() != second[name].tobytes()
    ]


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
    # Each stop lies beyond the one before, wherever the run goes on from, and far from the end: a
    # busy machine may deliver a signal some steps late.
    moments = sorted(rng.sample(range(1, max(options.steps // 2, len(stops) + 1)), len(stops)))
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        undisturbed = Run(Path(folder), "undisturbed", options.steps, options.devices)
        undisturbed.start()
        step_seconds = (time.perf_counter() - started) / options.steps
        disturbed = Run(Path(folder), "disturbed", options.steps, options.devices)
        for stop, step in zip(stops, moments, strict=True):
            disturbed.start(stop, step, pause=rng.uniform(0, min(step_seconds, 0.05)))
            print(f"{stop.name} after step {step} of {options.steps}", flush=True)
        print(disturbed.start().strip().splitlines()[0])
        expected = saved_arrays(undisturbed.workdir, options.steps)
        different = unequal(expected, saved_arrays(disturbed.workdir, options.steps))
    print(
        f"{len(expected)} arrays on {options.devices} devices, {len(different)} differ, seed {seed}"
    )
    for name in different:
        print(f"  {name}")
    return bool(different)


if __name__ == "__main__":
    sys.exit(main())
