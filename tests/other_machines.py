"""Runs tests as other machines would: `python -m tests.other_machines [numeric] [output]`.

- numeric: the tests with this mark, with the instructions of older processors, on one core and on
  two. Sums are then made in another order and rounded otherwise.
- output: the tests with this mark, on narrow and wide terminals, in short and long temporary
  folders.

More arguments, behind `--`, go to pytest. Its output is shown as it comes, and in the end a table
of all machines and the tests that failed on each.
"""

import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from rich.table import Table

from lidit_jax.io.console import NoWrapConsole

_ROOT = Path(__file__).parents[1]
_INSTRUCTIONS = {
    "as is": {},
    "AVX2": {
        "XLA_FLAGS": "--xla_cpu_max_isa=AVX2",
        "ATEN_CPU_CAPABILITY": "avx2",
        "DNNL_MAX_CPU_ISA": "AVX2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
    },
    "SSE4.2": {
        "XLA_FLAGS": "--xla_cpu_max_isa=SSE4_2",
        "ATEN_CPU_CAPABILITY": "default",
        "DNNL_MAX_CPU_ISA": "SSE41",
        "ONEDNN_MAX_CPU_ISA": "SSE41",
    },
}
"""Settings of XLA, of PyTorch's own kernels and of the oneDNN in both."""
_LONG = "a folder of somebody who likes long names, as the temporary ones of a Mac are, and spaces"
_OUTCOMES = ("passed", "failed", "error", "skipped")


def main(arguments: list[str]) -> int:
    """Prints a table; 1 where a test failed."""
    mine, rest = arguments, []
    if "--" in arguments:
        at = arguments.index("--")
        mine, rest = arguments[:at], arguments[at + 1 :]
    table = Table(box=None, padding=(0, 2, 0, 0))
    for title in ("machine", *_OUTCOMES, "minutes"):
        table.add_column(title, justify="left" if title == "machine" else "right")
    broken: list[str] = []
    with tempfile.TemporaryDirectory(prefix="t") as folder:
        machines = list(_machines(mine or ["numeric", "output"], folder))
        for i, (mark, machine, environment, cores) in enumerate(machines, start=1):
            print(f"--- {i} of {len(machines)}, {mark}: {machine}", flush=True)
            begin = time.monotonic()
            counts, names = _run(mark, os.environ | environment, cores, rest)
            minutes = f"{(time.monotonic() - begin) / 60:.1f}"
            table.add_row(f"{mark}: {machine}", *map(str, counts), minutes)
            broken += [f"{machine}: {name}" for name in names]
    console = NoWrapConsole()
    console.show(table)
    for line in broken:
        console.say(line)
    return 1 if broken else 0


def _machines(marks: list[str], folder: str) -> Iterator[tuple[str, str, dict[str, str], int]]:
    """Mark, name, variables of the environment, and cores; 0 for all."""
    for mark in marks:
        if mark == "numeric":
            for name, variables in _INSTRUCTIONS.items():
                if variables and platform.machine() not in ("x86_64", "AMD64"):
                    print(f"--- {mark}: {name} is left out, this is no x86 processor", flush=True)
                    continue
                flags = f"{os.environ.get('XLA_FLAGS', '')} {variables.get('XLA_FLAGS', '')}"
                for cores in (1, 2):
                    environment = variables | {
                        "XLA_FLAGS": flags.strip(),
                        "OMP_NUM_THREADS": str(cores),
                        "MKL_NUM_THREADS": str(cores),
                    }
                    yield mark, f"{name}, {cores} core{'s' * (cores > 1)}", environment, cores
        elif mark == "output":
            for columns in ("40", "300"):
                for length, name in (("short", "s"), ("long", _LONG)):
                    temporary = Path(folder) / name
                    temporary.mkdir(exist_ok=True)
                    environment = {"COLUMNS": columns, "TMPDIR": str(temporary)}
                    yield mark, f"{columns} columns, {length} folder", environment, 0
        else:
            raise SystemExit(f"{mark!r}: choose of numeric, output; what is for pytest follows --")


def _run(
    mark: str, environment: dict[str, str], cores: int, rest: list[str]
) -> tuple[list[int], list[str]]:
    """How many of `_OUTCOMES`, and the names of those that did not pass."""

    def fewer_cores() -> None:
        # What XLA and PyTorch take for the size of the machine, whatever the variables say.
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])

    limited = cores and hasattr(os, "sched_setaffinity")
    command = [sys.executable, "-m", "pytest", "-m", mark, "--no-header"]
    lines = []
    with subprocess.Popen(
        [*command, *rest],
        cwd=_ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=fewer_cores if limited else None,
    ) as process:
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(line.rstrip("\n"))
    last = lines[-1] if lines else ""
    counts = [int((re.search(rf"(\d+) {name}", last) or [0, 0])[1]) for name in _OUTCOMES]
    names = [line for line in lines if line.startswith(("FAILED ", "ERROR "))]
    if process.returncode and not names:
        names = [f"pytest ended with {process.returncode}: {last}"]
    return counts, names


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
