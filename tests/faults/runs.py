"""`lidit train` of the tiny recipe in processes that can be stopped, starved and compared.

Each start is a process of its own, forked from a server that has imported everything: fifty starts
then cost fifty runs and not fifty imports.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import re
import signal
import time
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging

from tests.tiny_encoders import save_encoder
from tests.xla_flags import xla_flags

RECIPE = Path(__file__).parents[1] / "tiny_recipe.py"
_PRELOADED = ["lidit_jax.cli", "lidit_jax.training.loop", "lidit_jax.training.lidit_task"]
_PRELOADED += ["lidit_jax.evaluation.images", "matplotlib.pyplot", "tests.faults.runs"]


class Start:
    """One start of a run: a process, and what it has printed so far."""

    def __init__(self, arguments: Sequence[str], log: Path, cache: Path, devices: int):
        self._log, self._seen = log, (0, 0)
        log.write_bytes(b"")
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(_PRELOADED)
        given = (arguments, log, cache, devices)
        self._process: BaseProcess = context.Process(target=_train, args=given)
        self._process.start()

    def __enter__(self) -> Start:
        return self

    def __exit__(self, *_: object) -> None:
        self.send(signal.SIGKILL)
        self._process.join()

    @property
    def output(self) -> str:
        """What it has printed."""
        return self._log.read_text(errors="replace")

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self._process.pid

    def step(self) -> int:
        """The last step that it has reported; 0 before the first."""
        size = self._log.stat().st_size
        if size != self._seen[0]:
            shown = re.findall(r"^step (\d+)/", self.output, flags=re.MULTILINE)
            self._seen = (size, int(shown[-1]) if shown else 0)
        return self._seen[1]

    def wait_until(self, condition: Callable[[], bool]) -> bool:
        """Looks every two milliseconds; False when the process ended first."""
        while not condition():
            if not self._process.is_alive():
                return False
            time.sleep(0.002)
        return True

    def send(self, number: signal.Signals) -> None:
        """Sends a signal, unless it has ended."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._process.pid, number)

    def end(self) -> int:
        """Waits for the end; the exit status, negative for a signal."""
        self._process.join()
        return self._process.exitcode


class Run:
    """A workdir and the command that trains in it."""

    def __init__(self, folder: Path, name: str, steps: int, devices: int = 1, **settings: object):
        """Nothing is started.

        Args:
          folder: of all runs that share data, encoders and compiled programs.
          name: of the workdir in it.
          steps: of training.
          devices: fake ones, of the CPU.
          settings: fields of the configuration, with `__` for the dot.
        """
        self.workdir, self.steps = folder / name, steps
        self._folder, self._devices = folder, devices
        encoder = folder / "llama"
        if not encoder.is_dir():
            save_encoder(encoder, "llama")
        fields: dict[str, object] = {
            "encoders.sources": (str(encoder),),
            "data.cache_dir": folder / "data",
            "training.steps": steps,
            # Only what a fault can hit: validation and pictures come once, at the end.
            "training.eval_every": steps,
            "training.image_every": steps,
            "model.depth": 1,
            "sampling.steps": 1,
            "sampling.guidance": 1.0,
        }
        fields |= {name.replace("__", "."): value for name, value in settings.items()}
        self._arguments = ["train", f"--config={RECIPE}", f"--workdir={self.workdir}"]
        self._arguments += [f"--config.{name}={value}" for name, value in fields.items()]

    def start(self) -> Start:
        """The command, once more."""
        log = self._folder / f"{self.workdir.name}.log"
        return Start(self._arguments, log, self._folder / "xla", self._devices)

    def finish(self, expected: int = 0) -> str:
        """Runs the command to its end; returns what it printed.

        Raises:
          RuntimeError: when its exit status is another one.
        """
        with self.start() as start:
            status = start.end()
            if status != expected:
                raise RuntimeError(f"exit status {status}, not {expected}:\n{start.output}")
            return start.output

    def steps_on_disk(self) -> list[int]:
        """Steps of the complete checkpoints, oldest first."""
        folder = self.workdir / "checkpoints"
        names = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
        return sorted(int(name) for name in names if name.isdecimal())

    def checkpoint(self, step: int) -> Path:
        """The folder of a checkpoint."""
        return self.workdir / "checkpoints" / str(step)

    def arrays(self) -> dict[str, np.ndarray]:
        """All arrays of the last checkpoint, by name."""
        return saved_arrays(self.workdir, self.steps)


def resumed_at(output: str) -> int:
    """The step from which a start went on, by its own words; 0 for a fresh one, -1 for neither."""
    found = re.search(r"^(?:resuming|starting) at step (\d+) in ", output, flags=re.MULTILINE)
    return int(found[1]) if found else -1


def saved_arrays(workdir: Path, step: int) -> dict[str, np.ndarray]:
    """All arrays of a checkpoint, by name."""
    logging.set_verbosity(logging.ERROR)
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


def _train(arguments: Sequence[str], log: Path, cache: Path, devices: int) -> None:
    """What a start does, in its process."""
    file = os.open(log, os.O_WRONLY | os.O_APPEND)
    for number in (1, 2):
        os.dup2(file, number)
    # Read when JAX looks for devices, which no process has done before.
    os.environ["XLA_FLAGS"] = xla_flags(devices)
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    from lidit_jax.cli import main

    os._exit(main(list(arguments)))
