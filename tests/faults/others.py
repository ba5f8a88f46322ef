"""Faults that are not signals at random moments: each is put into a run, and what is left is told.

Every function trains the tiny recipe in workdirs of its own and returns (what was done, what was
left). It raises `AssertionError` when something was lost.
"""

from __future__ import annotations

import json
import random
import resource
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from lidit_jax.data.cache.entries import referred, values_of, with_values
from lidit_jax.data.sources.record_files import RecordFiles, write_record_file
from lidit_jax.io.files import Files
from tests.faults.runs import Run, resumed_at, unequal

Row = tuple[str, str]
_SMALL = 100_000
"""Bytes beyond which no file may grow on the "full" disk; every checkpoint has larger ones."""


def killed_while_saving(folder: Path, undisturbed: Run, times: int, rng: random.Random) -> Row:
    """`kill -9` while a checkpoint is being written."""
    run = Run(folder, "killed-while-saving", undisturbed.steps)
    cut_off = 0

    def writing() -> bool:
        return any((run.workdir / "checkpoints").glob("*.orbax-checkpoint-tmp"))

    for _ in range(times):
        newest = max(run.steps_on_disk(), default=0)
        with run.start() as start:
            # What the kill before has left is cleaned up by then.
            if not start.wait_until(lambda s=start, n=newest: s.step() > n and writing()):
                break
            start.wait_until(_after(rng.randint(0, 20)))
            start.send(signal.SIGKILL)
            start.end()
            assert resumed_at(start.output) == newest, start.output
        cut_off += writing()
    output = run.finish()
    assert unequal(undisturbed.arrays(), run.arrays()) == []
    assert not writing(), "what was cut off is taken away"
    last = resumed_at(output)
    return (
        f"{cut_off} SIGKILL during a save",
        f"the checkpoint before each; the last start went on at step {last}; end equal to the bit",
    )


def full_disk(folder: Path, undisturbed: Run) -> Row:
    """A disk that is full during a save, and has room again for the next one."""
    run = Run(folder, "full-disk", undisturbed.steps)
    told = "could not be written"
    with run.start() as start:
        assert start.wait_until(lambda: 4 in run.steps_on_disk())
        limits = resource.prlimit(
            start.pid, resource.RLIMIT_FSIZE, (_SMALL, resource.RLIM_INFINITY)
        )
        assert start.wait_until(lambda: told in start.output), start.output
        intact = max(run.steps_on_disk())
        resource.prlimit(start.pid, resource.RLIMIT_FSIZE, limits)
        assert start.end() == 0, start.output
        line = next(line for line in start.output.splitlines() if told in line)
    assert f"that of step {intact} is intact" in line
    assert unequal(undisturbed.arrays(), run.arrays()) == []
    return (
        "disk full during a save (a limit on file sizes)",
        f"the checkpoint of step {intact}; told in one line; the run went on, later saves and the "
        "end equal to the bit",
    )


def full_disk_at_the_end(folder: Path, undisturbed: Run) -> Row:
    """A disk that is full when the run ends."""
    run = Run(folder, "full-at-the-end", undisturbed.steps)
    with run.start() as start:
        assert start.wait_until(lambda: 4 in run.steps_on_disk())
        resource.prlimit(start.pid, resource.RLIMIT_FSIZE, (_SMALL, resource.RLIM_INFINITY))
        assert start.end() == 2, start.output
    intact = max(run.steps_on_disk())
    assert resumed_at(run.finish()) == intact
    assert unequal(undisturbed.arrays(), run.arrays()) == []
    return (
        "disk full until the run ends",
        f"exit status 2; the checkpoint of step {intact}, from which the same command went on",
    )


def damaged(folder: Path, undisturbed: Run, kind: str, damage: Callable[[Path, Path], None]) -> Row:
    """A newest checkpoint that is not what was saved: refused, and the one before is good.

    Args:
      folder: of the runs.
      undisturbed: has been trained to its end.
      kind: of the damage, for the table.
      damage: is given the newest checkpoint and the one before.
    """
    run = Run(folder, f"damaged-{len(list(folder.glob('damaged-*')))}", undisturbed.steps)
    with run.start() as start:
        assert start.wait_until(lambda: len(run.steps_on_disk()) > 1)
        start.send(signal.SIGKILL)
        start.end()
    before, newest = run.steps_on_disk()[-2:]
    damage(run.checkpoint(newest), run.checkpoint(before))
    refusal = run.finish(expected=2)
    assert "cannot restore checkpoint" in refusal, refusal
    assert "delete that folder to continue from the previous one" in refusal
    shutil.rmtree(run.checkpoint(newest))
    assert resumed_at(run.finish()) == before
    assert unequal(undisturbed.arrays(), run.arrays()) == []
    return (
        kind,
        "refused with the file and the way out, exit status 2; the checkpoint before it, from "
        "which the run ended equal to the bit",
    )


def truncate(newest: Path, before: Path) -> None:
    """Cuts the largest file of a checkpoint in half."""
    del before
    files = [path for path in (newest / "state").rglob("*") if path.is_file()]
    largest = max(files, key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])


def swap(newest: Path, before: Path) -> None:
    """Puts the arrays of another step into a checkpoint: whole, readable, and wrong."""
    shutil.rmtree(newest / "state")
    shutil.copytree(before / "state", newest / "state")


def _with_nan(entry: bytes) -> bytes:
    """The same caption, whose features of one encoder in bfloat16 are NaN."""
    (count,) = np.frombuffer(values_of(entry)[:4], "<u4")
    values = np.frombuffer(values_of(entry)[4:], np.uint16)
    assert len(values) % count == 0
    packed = values_of(entry)[:4].tobytes() + np.full_like(values, 0x7FC0).tobytes()
    return with_values(packed)


def batches_of_nan(folder: Path, undisturbed: Run) -> Row:
    """Prepared text features of one or two captions that are NaN."""
    data = folder / "data-with-nan"
    # With one held-out caption, the first or the last of all is one that training sees.
    settings = {"data__cache_dir": data, "data__validation_records": 1}
    Run(folder, "nan-prepared", 1, **settings).finish()
    for shard in data.glob("text-*/*.array_record"):
        found = list(RecordFiles(Files(str(shard.parent))).scan(shard.name))
        whole = [number for number, entry in enumerate(found) if referred(entry) is None]
        for number in (whole[0], whole[-1]):
            found[number] = _with_nan(found[number])
        write_record_file(shard, found)
    run = Run(folder, "nan", undisturbed.steps, training__stop_after_skipped=100, **settings)
    output = run.finish()
    skipped = output.count("loss or gradient is not finite; this update was left out")
    arrays = run.arrays()
    assert 0 < skipped < undisturbed.steps, output
    assert all(np.isfinite(value).all() for value in arrays.values())
    return (
        "captions whose features are NaN, in some of 64 records",
        f"all weights and averages finite; {skipped} of {run.steps} updates left out, their "
        "records named",
    )


def corrupt_image(folder: Path, undisturbed: Run) -> Row:
    """A picture of the user's folder that cannot be decoded."""
    pictures = folder / "pictures"
    pictures.mkdir()
    rng = np.random.default_rng(0)
    captions = []
    for number in range(32):
        image = Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8))
        image.save(pictures / f"{number}.png")
        captions.append(json.dumps({"file": f"{number}.png", "caption": "a red circle"}))
    (pictures / "captions.jsonl").write_text("\n".join(captions))
    broken = pictures / "17.png"
    whole = broken.read_bytes()
    broken.write_bytes(whole[: len(whole) // 2])
    run = Run(folder, "corrupt-image", 4, data__source="folder", data__path=pictures)
    refusal = run.finish(expected=2)
    told = "1 of 32 records cannot be read, more than config.data.reading.skipped_fraction=0.01"
    assert told in refusal, refusal
    assert "17.png" in refusal, refusal
    broken.write_bytes(whole)
    run.finish()
    return (
        "a corrupt image in the data",
        "refused by its name before the first step, exit status 2; with a whole one the same "
        "command trains",
    )


def _after(times: int) -> Callable[[], bool]:
    """True when it has been asked that often."""
    asked = iter(range(times))
    return lambda: next(asked, None) is None
