"""DPG-Bench (arXiv 2403.05135): long prompts, judged by questions about every part of them."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path

from lidit_jax.errors import LiditError
from lidit_jax.evaluation.suites.prompt_files import (
    checked_prompt,
    find_file,
    read_lines,
    read_records,
)
from lidit_jax.evaluation.suites.result_files import complete
from lidit_jax.evaluation.suites.suite import Item, Picture, Results, Task

_PROMPTS = "prompts.jsonl"
_NUMBER = re.compile(r"[0-9.eE+-]+")
_STATED = "DPG-Bench score:"
_ROUNDING = 1e-6
"""Largest difference of two sums of at most 4,260 scores of order one, in double precision, by the
order of their terms, and of the printed digits; with a margin of a thousand."""


class Dpg:
    """Suite of 1,065 prompts; each file is a grid of four images."""

    name = "dpg"
    title = "DPG-Bench"
    folder = "dpg_bench"
    images_per_prompt = 4
    official_prompts = 1065
    square = True
    tasks = (Task("dpg", "DPG"),)
    mean = ""
    mean_column = ""
    scale = 100.0

    def items(self, source: Path) -> list[Item]:
        """Read `prompts.jsonl` with `item_id` and `prompt`, or the official `prompts/ID.txt`."""
        folders = (source / "dpg_bench" / "prompts", source / "prompts", source)
        folder = next((folder for folder in folders if _text_files(folder)), None)
        if folder is not None:
            texts = [(file.stem, " ".join(read_lines(file))) for file in _text_files(folder)]
            source = folder
        else:
            source = find_file(source, _PROMPTS)
            records = read_records(source, ("item_id", "prompt"))
            texts = [(record["item_id"], record["prompt"]) for record in records]
        items = []
        for place, (key, prompt) in enumerate(texts):
            where = f"{source}: {key!r}"
            if not re.fullmatch(r"[\w-]+", key):
                raise LiditError(f"{where} is not a name of letters and digits for an image")
            items.append(Item(key, "dpg", checked_prompt(where, prompt.strip()), place))
        return items

    def pictures(self, item: Item, count: int) -> list[Picture]:
        """Return `ID.png`: a grid of two by two, or one image."""
        if count not in (1, 4):
            raise LiditError(
                f"--images-per-prompt={count}: DPG-Bench reads grids of 4 images, or single ones: "
                "write 4 or 1"
            )
        return [Picture(f"{item.key}.png", item, tuple(range(count)))]

    def text_files(self, items: Sequence[Item], count: int) -> dict[str, str]:
        """Return none: the scorer has its own file of questions."""
        return {}

    def read_results(self, path: Path, items: Sequence[Item], count: int) -> Results:
        """Read the text of `--res-path`: a line per grid, then the summary."""
        lines = read_lines(path)
        stated = [line for line in lines if line.startswith(_STATED)]
        if not stated:
            raise LiditError(
                f"{path} has no line {_STATED!r} at its end: it is cut off, or not the results "
                "file of DPG-Bench's scorer (dpg-bench_*_results.txt, without _detail)"
            )
        keys = {item.key for item in items}
        found: dict[tuple[str, int], float] = {}
        averages = []
        for number, line in enumerate(lines, 1):
            if ".png, " not in line:
                continue
            where = f"{path}: line {number}"
            file, _, rest = line.rpartition(".png, ")
            *scores, average = _numbers(rest, where)
            key = re.split(r"[/\\]", file)[-1]
            if not scores or (len(scores) != count and key in keys):
                raise LiditError(
                    f"{where} has {len(scores)} scores for the {count} images of {key}: was "
                    "--pic-num another, or is the line cut off?"
                )
            if abs(sum(scores) / len(scores) - average) > _ROUNDING:
                raise LiditError(f"{where}: {average} is not the mean of its scores: score again")
            for sample, score in enumerate(scores):
                if (key, sample) in found:
                    raise LiditError(f"{where} is a second result of {key}: score into a new file")
                found[key, sample] = score
            averages.append(average)
        results = complete(self, found, items, count, str(path))
        (said,) = _numbers(stated[-1].removeprefix(_STATED).strip(), str(path))
        mean = math.fsum(averages) / len(averages)
        if abs(100 * mean - said) > 100 * _ROUNDING:
            raise LiditError(
                f"{path} states a score of {said}, but its lines average {100 * mean}: score again"
            )
        return results

    def scorer_commands(self, out: str, side: int, count: int) -> list[str]:
        """Return the command of github.com/TencentQQGYLab/ELLA."""
        return [f'PIC_NUM={count} bash dpg_bench/dist_eval.sh "{out}" {side}']


def _text_files(folder: Path) -> list[Path]:
    """Return the text files of a folder, those with numbers for names in their order."""
    files = folder.glob("*.txt") if folder.is_dir() else ()
    return sorted(files, key=lambda file: (not file.stem.isdigit(), len(file.stem), file.stem))


def _numbers(text: str, where: str) -> list[float]:
    parts = text.split(", ")
    if not all(_NUMBER.fullmatch(part) for part in parts):
        raise LiditError(f"{where}: {text[:60]!r} is not a list of scores: score again")
    try:
        return [float(part) for part in parts]
    except ValueError as error:
        raise LiditError(f"{where}: {text[:60]!r} is not a list of scores: score again") from error
