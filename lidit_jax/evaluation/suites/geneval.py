"""GenEval (arXiv 2310.11513): objects, counts, colors and positions, judged by a detector."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from lidit_jax.errors import LiditError
from lidit_jax.evaluation.suites.json_text import parse_object
from lidit_jax.evaluation.suites.prompt_files import (
    checked_prompt,
    find_file,
    read_lines,
    read_records,
)
from lidit_jax.evaluation.suites.result_files import check_prompt_set, complete
from lidit_jax.evaluation.suites.suite import Item, Picture, Results, Task

_PROMPTS = "evaluation_metadata.jsonl"
_PLACE = re.compile(r"(?:^|[/\\])(\d+)[/\\]samples[/\\](\d+)\.png$")
"""End of an image's path, with the line of the prompt and the index of the image."""


class GenEval:
    """Suite of 553 prompts in six tasks; the scorer writes one line per image."""

    name = "geneval"
    title = "GenEval"
    folder = "geneval"
    images_per_prompt = 4
    official_prompts = 553
    square = False
    tasks = (
        Task("single_object", "single"),
        Task("two_object", "two"),
        Task("counting", "count"),
        Task("colors", "colors"),
        Task("position", "position"),
        Task("color_attr", "attribution"),
    )
    mean = "overall"
    mean_column = "overall"
    scale = 1.0

    def items(self, source: Path) -> list[Item]:
        """Read `evaluation_metadata.jsonl`, of a folder or of the official repository."""
        file = find_file(source, _PROMPTS, f"prompts/{_PROMPTS}")
        names = {task.name for task in self.tasks}
        items = []
        for place, record in enumerate(read_records(file, ("tag", "prompt"))):
            where = f"{file}: line {place + 1}"
            if record["tag"] not in names:
                raise LiditError(f"{where} has the unknown tag {record['tag']!r}")
            prompt = checked_prompt(where, record["prompt"])
            items.append(Item(f"{place:05d}", record["tag"], prompt, place, json.dumps(record)))
        return items

    def pictures(self, item: Item, count: int) -> list[Picture]:
        """Return `LINE/samples/IMAGE.png`, with the line of the prompt from 0."""
        return [
            Picture(f"{item.place:05d}/samples/{sample:04d}.png", item, (sample,))
            for sample in range(count)
        ]

    def text_files(self, items: Sequence[Item], count: int) -> dict[str, str]:
        """Return the official record of each prompt, which the scorer reads."""
        return {f"{item.place:05d}/metadata.jsonl": item.record for item in items}

    def read_results(self, path: Path, items: Sequence[Item], count: int) -> Results:
        """Read `results.jsonl`: one line per image, with `tag`, `prompt` and `correct`."""
        by_place = {item.place: item for item in items}
        found: dict[tuple[str, int], float] = {}
        strangers = []
        lines = read_lines(path)
        for number, line in enumerate(lines, 1):
            where = f"{path}: line {number}"
            row = parse_object(line, where)
            file, correct = str(row.get("filename")), row.get("correct")
            place = _PLACE.search(file)
            if place is None or not isinstance(correct, bool):
                raise LiditError(
                    f"{where} is no result of an image LINE/samples/IMAGE.png (filename {file!r},"
                    f" correct {correct!r}): name the results.jsonl of GenEval's scorer"
                )
            line_number, sample = int(place[1]), int(place[2])
            item = by_place.get(line_number)
            if item is not None and (row.get("tag"), row.get("prompt")) != (item.task, item.prompt):
                strangers.append(f"{row.get('prompt')!r} of {file}")
            key = (item.key if item else f"{line_number:05d}", sample)
            if key in found:
                raise LiditError(f"{where} is a second result of {file}: score the images again")
            found[key] = float(correct)
        check_prompt_set(strangers, len(lines), str(path))
        return complete(self, found, items, count, str(path))

    def scorer_commands(self, out: str, side: int, count: int) -> list[str]:
        """Return the command of github.com/djghosh13/geneval."""
        return [
            f'python evaluation/evaluate_images.py "{out}" --outfile "{out}/results.jsonl" '
            "--model-path DETECTOR_FOLDER"
        ]
