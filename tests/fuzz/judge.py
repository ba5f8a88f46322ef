"""Runs one case and says what is wrong with how it ended."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lidit_jax.cli import main
from tests.fuzz.cases import MODEL, RECIPE, Case
from tests.fuzz.stand_ins import RECIPE as RECIPE_FILE

# What does not fit onto a slice, and what a machine lacks, is an answer too.
_ANSWERS = ("doctor", "plan")
_TIMEOUT = 300


@dataclass(frozen=True)
class Outcome:
    """How a case ended."""

    status: int
    fault: str = ""
    """What is wrong; empty if nothing is. Faults of one kind read alike."""
    details: str = ""


def run_here(case: Case, model: Path) -> Outcome:
    """Runs a case in this process, as `lidit` would."""
    out, err = (
        io.TextIOWrapper(io.BytesIO(), "utf-8", errors=errors)
        for errors in ("strict", "backslashreplace")
    )
    with _folder(case, model) as (folder, before):
        here = Path.cwd()
        os.chdir(folder)
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                status = main(_arguments(case, model))
        except BaseException as error:
            return Outcome(1, _kind(error), "".join(traceback.format_exception(error)))
        finally:
            os.chdir(here)
        err.flush()
        said = err.buffer.getvalue().decode()
        return _judged(case, status, said, before, _content(folder))


def run_process(case: Case, model: Path) -> Outcome:
    """Runs a case as a process of its own, with nothing replaced."""
    arguments = [
        os.fsencode(text.replace("\0", "").encode(errors="replace"))
        if any("\ud800" <= character < "\udc80" for character in text)
        else os.fsencode(text.replace("\0", ""))
        for text in _arguments(case, model)
    ]
    with _folder(case, model) as (folder, before):
        root = Path(__file__).parents[2]
        environment = os.environ | {"PYTHONPATH": str(root)}
        command = [sys.executable, "-m", "lidit_jax.cli", *arguments]
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, timeout=_TIMEOUT, check=False
        )
        said = done.stderr.decode(errors="backslashreplace")
        return _judged(case, done.returncode, said, before, _content(folder))


def _arguments(case: Case, model: Path) -> list[str]:
    words = {MODEL: str(model), RECIPE: str(RECIPE_FILE)}
    found = []
    for argument in case.arguments:
        for word, meaning in words.items():
            argument = argument.replace(word, meaning)
        found.append(argument)
    return found


@contextlib.contextmanager
def _folder(case: Case, model: Path) -> Iterator[tuple[Path, dict[str, bytes]]]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for path, content in case.files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)
        # So that a record, whose checksums allow no change, may name it.
        (folder / MODEL).symlink_to(model)
        yield folder, _content(folder)


def _content(folder: Path) -> dict[str, bytes]:
    """Files with what they hold, and folders."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b"folder"
        for path in folder.rglob("*")
    }


def _judged(
    case: Case, status: int, said: str, before: dict[str, bytes], after: dict[str, bytes]
) -> Outcome:
    allowed = (0, 1, 2) if case.arguments[0] in _ANSWERS else (0, 2)
    errors = [line for line in said.splitlines() if line.startswith("lidit: error: ")]
    if "Traceback" in said:
        return Outcome(status, said.strip().splitlines()[-1][:100], said)
    if status not in allowed:
        return Outcome(status, f"status {status}", said)
    if status == 2 and len(errors) != 1:
        return Outcome(status, f"{len(errors)} lines of error", said)
    if status == 2 and after != before:
        changed = [path for path in after if after[path] != before.get(path)]
        return Outcome(status, f"left behind by {case.arguments[0]}", f"{changed}\n{said}")
    if half := [path for path in after if path.endswith(".tmp")]:
        return Outcome(status, "half written", str(half))
    return Outcome(status)


def _kind(error: BaseException) -> str:
    """The type of an error and the place in the package that it went through last."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "lidit_jax" in f.filename]
    place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "?"
    return f"{type(error).__name__} at {place}"
